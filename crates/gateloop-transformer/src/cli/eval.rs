//! `gateloop eval`

use super::args::EvalArgs;
use super::{CliError, open_checkpoint, print_line};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::data::{Corpus, fixed_windows};
use crate::evaluate::{Context, Options, evaluate};
use crate::metrics::plot;
use crate::train::bits_per_character;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tch::Device;

pub(super) fn run(args: &EvalArgs) -> Result<(), CliError> {
    // Before an evaluation that takes minutes.
    args.positions.as_deref().map(plot::Format::of).transpose()?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let text = checkpoint.config().to_toml()?;
    let origin = checkpoint.path().display().to_string();
    let config = Config::from_toml_str(&text, &origin, &args.overrides)?;
    let corpus = Corpus::open(&config.data)?;
    corpus.check_vocabulary(config.model.num_tokens)?;

    let seq_len = args.seq_len.map_or(config.train.seq_len, |n| n as usize);
    // Rows of a training batch fit in memory; longer windows take proportionally fewer.
    let rows = (config.train.batch_size * config.train.seq_len / seq_len).max(1);
    if args.whole {
        return whole(args, (&checkpoint, &config), corpus.split(args.split), seq_len, rows);
    }
    let count = args.windows.map_or(config.train.validate_windows, |n| n as usize);
    let windows = fixed_windows(&corpus, args.split, count, seq_len)?;
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

/// The split from its first byte to its last.
fn whole(
    args: &EvalArgs,
    (checkpoint, config): (&Checkpoint, &Config),
    bytes: &[u8],
    seq_len: usize,
    rows: usize,
) -> Result<(), CliError> {
    let stride = args.stride.map_or(seq_len, |stride| stride as usize);
    if stride > seq_len {
        return Err(CliError::Usage(format!(
            "--stride {stride} is more than --seq-len {seq_len}: bytes between two windows would not be predicted"
        )));
    }
    let context = if args.carry { Context::Carried } else { Context::Windows { stride } };
    let (knows, options) = match context {
        // The state is small; what is read at once is as long as full speed takes.
        Context::Carried => (
            "the state carried".to_owned(),
            Options { seq_len: seq_len.max(4096), context, rows: 1 },
        ),
        Context::Windows { stride } => {
            let knows = format!("windows of {seq_len} at a stride of {stride}");
            (knows, Options { seq_len, context, rows })
        }
    };
    for &weights in &args.weights {
        let mut model = checkpoint.model(Device::Cpu)?;
        model.quantize(weights.into())?;
        let bar = bar(bytes.len());
        let evaluation = evaluate(&model, bytes, &options, &mut |done, _| bar.set_position(done))?;
        bar.finish_and_clear();
        print_line(&format!(
            "{}/bpc {:.4} +- {:.4}  ({}, {} bytes, {knows}; step {}, weights {})",
            args.split,
            evaluation.bpc,
            evaluation.error,
            config.data.source,
            evaluation.tokens,
            checkpoint.progress().step,
            model.weight_kind(),
        ))?;
        if let Some(path) = &args.positions {
            let title = format!("{}, {}", args.checkpoint.display(), args.split);
            plot::by_position(&evaluation.by_position, &title, path)?;
        }
    }
    Ok(())
}

/// Shown on a terminal only.
fn bar(bytes: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:24.cyan/blue} {percent} %  {eta} left");
    // The template is a constant of this program; the default style is the fallback.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
