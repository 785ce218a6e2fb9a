//! What the forms of the operator keep for the backward pass, as the growth of the peak of resident
//! memory. One test in one process: nothing else allocates meanwhile.

mod common;

use common::{TestResult, tensor, weighted_sum};
use gateloop_nn::gate_loop::{Form, Operands, StateTransition, gate_loop};
use gateloop_nn::{GateLoopConfig, SequenceLayer};
use std::fs;
use tch::nn::VarStore;
use tch::{Device, Kind};

const HEAD_DIM: i64 = 128;

/// Bytes of one complex state of one head.
const STATE: i64 = HEAD_DIM * HEAD_DIM * 8;

/// Bytes that a forward and backward pass over T tokens adds to what the process holds at its
/// peak; `None` where the system does not say.
fn peak_growth(form: Form, seqlen: i64) -> Option<i64> {
    let x = |seed| tensor(&[1, seqlen, HEAD_DIM], Kind::Float, seed).set_requires_grad(true);
    let (q, k, v) = (x(1), x(2), x(3));
    let a = |seed| tensor(&[1, seqlen, 1], Kind::Float, seed);
    let (log_magnitude, phase) =
        ((a(4) - 1.0).set_requires_grad(true), a(5).set_requires_grad(true));
    // Writing 5 sets the recorded peak back to what is held now.
    fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = status("VmRSS")?;
    let transition = StateTransition::from_polar(&log_magnitude, &phase).ok()?;
    let operands = Operands { q: &q, k: &k, v: &v, transition: &transition };
    let (y, _) = gate_loop(&operands, None, form).ok()?;
    weighted_sum(&y, 6).f_backward().ok()?;
    Some(status("VmHWM")? - before)
}

/// A size in /proc/self/status, in bytes.
fn status(key: &str) -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Bytes that a layer in the quadratic form holds between its forward and its backward pass.
fn kept(recompute: bool, seqlen: i64) -> Option<i64> {
    let vs = VarStore::new(Device::Cpu);
    let (heads, form) = (Some(1), Form::Quadratic);
    let config = GateLoopConfig { heads, form, recompute, ..GateLoopConfig::new(HEAD_DIM) };
    let layer = config.init(&vs.root()).ok()?;
    let x = tensor(&[1, seqlen, HEAD_DIM], Kind::Float, 7);
    let before = status("VmRSS")?;
    let y = layer.forward(&x).ok()?;
    let kept = status("VmRSS")? - before;
    weighted_sum(&y, 8).f_backward().ok()?;
    Some(kept)
}

#[test]
fn what_is_kept_is_what_the_form_promises() -> TestResult {
    // The libraries' own first allocations are not counted.
    if peak_growth(Form::Chunkwise, HEAD_DIM).is_none() {
        println!("skipped: this system does not report the peak of resident memory");
        return Ok(());
    }
    // The recurrent form keeps a state for every token, and the measure sees it. It comes first and
    // short: memory that it leaves in the heap's hands is not counted again below.
    let seqlen = 128;
    let recurrent = peak_growth(Form::Recurrent, seqlen).ok_or("no measurement")?;
    println!("recurrent: {} MiB, T states: {} MiB", recurrent >> 20, (seqlen * STATE) >> 20);
    assert!(recurrent > seqlen * STATE, "{recurrent} bytes");

    // The chunkwise form stays below a quarter of that.
    let seqlen = 4096;
    let chunkwise = peak_growth(Form::Chunkwise, seqlen).ok_or("no measurement")?;
    println!("chunkwise: {} MiB, T states: {} MiB", chunkwise >> 20, (seqlen * STATE) >> 20);
    assert!(chunkwise < seqlen * STATE / 4, "{chunkwise} bytes");

    // The quadratic form computes the scores of all tokens with all tokens again, whether it is asked to keep what the
    // gradient needs or not.
    let seqlen = 4096;
    let scores = seqlen * seqlen * 4;
    let (again, all) =
        (kept(true, seqlen).ok_or("no measurement")?, kept(false, seqlen).ok_or("no measurement")?);
    println!("quadratic: {} MiB kept, {} MiB when recomputed", all >> 20, again >> 20);
    assert!(all < scores / 4 && again < scores / 4, "{all} and {again} bytes");
    Ok(())
}
