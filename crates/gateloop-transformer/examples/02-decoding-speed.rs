//! How fast a model decodes beside the speed at which this machine reads its weights.
//!
//! `cargo run --release -p gateloop-transformer --example 02-decoding-speed [full]`
//!
//! The weights are random: speed does not depend on them. `full` takes the model of
//! configs/enwik8-reference.toml and contexts up to 65,536 tokens; otherwise all is small.

use gateloop_nn::WeightKind;
use gateloop_transformer::config::ModelConfig;
use gateloop_transformer::generate::speed::measure;
use gateloop_transformer::model::Model;
use std::error::Error;
use tch::Device;

fn main() -> Result<(), Box<dyn Error>> {
    let full = std::env::args().any(|argument| argument == "full");
    let (dim, depth, turns) = if full { (512, 6, 20) } else { (64, 2, 2) };
    let contexts: &[usize] = if full { &[128, 4096, 65_536] } else { &[16, 128] };
    let config = ModelConfig { dim, depth, post_ln_norm: true, ..ModelConfig::default() };
    for kind in WeightKind::ALL {
        let mut model = Model::seeded(&config, Device::Cpu, 1)?;
        model.quantize(kind)?;
        println!("{kind}: {:.1} MB of weights a step", model.bytes_per_step() as f64 / 1e6);
        let one = measure(&model, contexts[0], 1, turns)?;
        for batch in [1, 2, 4, 8, 16, 64] {
            let speed = measure(&model, contexts[0], batch, turns.div_ceil(batch).max(2))?;
            let gain = batch as f64 * one.step_s / speed.step_s;
            let rate = batch as f64 / speed.step_s;
            println!("  batch {batch:>2}: {rate:.0} tokens/s, {gain:.1} times batch 1");
        }
        // Rounded weights change nothing about the states.
        let contexts = if kind == WeightKind::F32 { contexts } else { &contexts[..1] };
        for &context in contexts {
            let speed = measure(&model, context, 1, turns)?;
            let (ms, limit, share) =
                (1e3 * speed.step_s, 1e3 * speed.read_s, 100.0 * speed.share());
            println!(
                "  context {context}: {ms:.3} ms a token, reading {limit:.3} ms: {share:.0} %"
            );
        }
    }
    Ok(())
}
