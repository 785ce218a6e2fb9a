//! Lesson 1: train a small model on generated text, and let it write.
//!
//! `cargo run --release -p gateloop-transformer --example 01-train-and-generate`

use gateloop_transformer::config::{Config, ModelConfig, TrainConfig};
use gateloop_transformer::data::{Corpus, Split, WindowSampler, fixed_windows};
use gateloop_transformer::generate::{Generator, Sampler, TextStream};
use gateloop_transformer::model::Model;
use gateloop_transformer::train::{Trainer, bits_per_character};
use std::error::Error;
use tch::Device;

fn main() -> Result<(), Box<dyn Error>> {
    // A model this small is faster on one thread than with threads that wait for each other.
    tch::set_num_threads(1);

    // A configuration is a value; `Config::load` reads the same from a file.
    let config = Config {
        model: ModelConfig { dim: 64, depth: 2, ..ModelConfig::default() },
        train: TrainConfig {
            batch_size: 4,
            seq_len: 64,
            grad_accum: 1,
            lr: 5e-3,
            ..TrainConfig::default()
        },
        ..Config::from_toml_str("[data]\nsource = \"synthetic:text\"", "example", &[])?
    };

    // The data: windows of the training split in an order that the seed fixes.
    let corpus = Corpus::open(&config.data)?;
    let sampler = WindowSampler::new(&corpus, Split::Train, config.train.seq_len, 42)?;
    let valid = fixed_windows(&corpus, Split::Valid, 16, config.train.seq_len)?;

    // A trainer makes one update a call, and touches neither files nor the terminal.
    let model = Model::seeded(&config.model, Device::Cpu, 42)?;
    let mut trainer = Trainer::new(model, sampler, &config.train)?;
    println!("{:>5}  {:>10}  {:>9}", "step", "train nats", "valid bpc");
    for step in 1..=200 {
        let report = trainer.train_step()?;
        if step % 50 == 0 {
            let bpc = bits_per_character(trainer.model(), &valid, 16)?;
            println!("{step:>5}  {:>10.3}  {bpc:>9.3}", report.loss);
        }
    }

    // The prompt is read at once; from there each token costs the same, however long the text.
    let prompt: Vec<i64> = "The ".bytes().map(i64::from).collect();
    let mut generator = Generator::new(trainer.model(), &prompt, Sampler::new(0.7, 26, 1))?;
    let mut text = TextStream::default();
    let mut written = text.push_all(&prompt);
    for _ in 0..200 {
        written.push_str(&text.push(generator.next_token()?));
    }
    println!("\n{written}");
    Ok(())
}
