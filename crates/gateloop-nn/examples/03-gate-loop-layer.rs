//! Lesson 3: a layer, and the three ways to run it.
//!
//! `cargo run -p gateloop-nn --example 03-gate-loop-layer`
//!
//! Training sees whole sequences, a prompt is read at once, and generation goes token by token. All
//! three compute the same function, and the state between them does not grow with the past.

use gateloop_nn::{GateLoopConfig, NormPlacement, Residual, Result, SequenceLayer};
use tch::{Device, Kind, Tensor, nn};

fn main() -> Result<()> {
    let (dim, seqlen, prompt) = (32, 100, 90);
    let vs = nn::VarStore::new(Device::Cpu);
    let config = GateLoopConfig { heads: Some(4), ..GateLoopConfig::new(dim) };
    let layer = Residual::new(&vs.root(), dim, NormPlacement::default(), |path| config.init(path))?;

    let mut parameters: Vec<_> = vs.variables().into_iter().collect();
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, parameter) in &parameters {
        println!("{name:<22} {:?}", parameter.size());
    }

    let _no_grad = tch::no_grad_guard();
    let x = Tensor::randn([1, seqlen, dim], (Kind::Float, Device::Cpu));
    let whole = layer.forward(&x)?;

    let mut state = layer.initial_state(1);
    let mut outputs = vec![layer.prefill(&x.narrow(1, 0, prompt), &mut state)?];
    for t in prompt..seqlen {
        outputs.push(layer.step(&x.select(1, t), &mut state)?.unsqueeze(1));
    }

    let difference = (Tensor::cat(&outputs, 1) - whole).abs().max().double_value(&[]);
    println!("\n{prompt} tokens prefilled, {} stepped", seqlen - prompt);
    println!("largest difference to the whole sequence at once: {difference:.1e}");
    println!("numbers in the state, after any number of tokens: {}", layer.layer().state_len());
    Ok(())
}
