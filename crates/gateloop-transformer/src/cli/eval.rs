//! `gateloop eval`

use super::args::EvalArgs;
use super::{CliError, open_checkpoint, print_line};
use crate::config::Config;
use crate::data::{Corpus, fixed_windows};
use crate::train::bits_per_character;
use tch::Device;

pub(super) fn run(args: &EvalArgs) -> Result<(), CliError> {
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let text = checkpoint.config().to_toml()?;
    let origin = checkpoint.path().display().to_string();
    let config = Config::from_toml_str(&text, &origin, &args.overrides)?;
    let corpus = Corpus::open(&config.data)?;
    corpus.check_vocabulary(config.model.num_tokens)?;

    let seq_len = args.seq_len.map_or(config.train.seq_len, |n| n as usize);
    let count = args.windows.map_or(config.train.validate_windows, |n| n as usize);
    let windows = fixed_windows(&corpus, args.split, count, seq_len)?;
    // Rows of a training batch fit in memory; longer windows take proportionally fewer.
    let rows = (config.train.batch_size * config.train.seq_len / seq_len).max(1);
    for &weights in &args.weights {
        let mut model = checkpoint.model(Device::Cpu)?;
        model.quantize(weights.into())?;
        let bpc = bits_per_character(&model, &windows, rows)?;
        print_line(&format!(
            "{}/bpc {bpc:.4}  ({}, {count} windows of {seq_len} tokens, each from an empty state; \
             step {}, weights {})",
            args.split,
            config.data.source,
            checkpoint.progress().step,
            model.weight_kind(),
        ))?;
    }
    Ok(())
}
