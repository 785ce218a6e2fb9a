//! How fast a model decodes beside the speed at which this machine reads its weights.
//!
//! `cargo run --release -p gateloop-transformer --example 02-decoding-speed [full]`
//!
//! The weights are random: speed does not depend on them. `full` takes the model of
//! configs/enwik8-reference.toml and contexts up to 65,536 tokens; otherwise all is small.

use gateloop_nn::WeightKind;
use gateloop_transformer::config::ModelConfig;
use gateloop_transformer::generate::speed::{median, read_time, step_times};
use gateloop_transformer::model::Model;
use std::error::Error;
use tch::Device;

fn main() -> Result<(), Box<dyn Error>> {
    let full = std::env::args().any(|argument| argument == "full");
    let (dim, depth, steps) = if full { (512, 6, 400) } else { (64, 2, 10) };
    let contexts: &[usize] = if full { &[128, 4096, 65_536] } else { &[16, 128] };
    let config = ModelConfig { dim, depth, post_ln_norm: true, ..ModelConfig::default() };
    for kind in WeightKind::ALL {
        let mut model = Model::seeded(&config, Device::Cpu, 1)?;
        model.quantize(kind)?;
        let bytes = model.bytes_per_step();
        println!("{kind}: {:.1} MB of weights a step", bytes as f64 / 1e6);
        for &context in contexts {
            let ms = 1e3 * median(&step_times(&model, context, 1, steps)?);
            // The machine may slow down or speed up meanwhile: the limit is measured beside.
            let limit = 1e3 * read_time(bytes, 20);
            println!(
                "  context {context:>6}: {ms:.3} ms a token, {:.0} % of the reading limit ({limit:.3} ms)",
                100.0 * limit / ms
            );
        }
        let rate = |batch: usize, steps| -> Result<f64, Box<dyn Error>> {
            Ok(batch as f64 / median(&step_times(&model, 128, batch, steps)?))
        };
        let one = rate(1, steps)?;
        for batch in [2, 4, 8, 16, 64] {
            let many = rate(batch, steps / 5)?;
            println!("  batch {batch:>2}: {many:.0} tokens/s, {:.1} times batch 1", many / one);
        }
    }
    Ok(())
}
