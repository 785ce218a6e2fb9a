//! `gateloop eval`

use super::args::EvalArgs;
use super::{CliError, open_checkpoint, print_line, quantize};
use crate::checkpoint::Checkpoint;
use crate::config::{Config, LossOn};
use crate::data::{Corpus, fixed_windows};
use crate::device::device;
use crate::evaluate::{Accuracy, Context, Options, evaluate, validate};
use crate::metrics::plot;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) fn run(args: &EvalArgs) -> Result<(), CliError> {
    // Before an evaluation that takes minutes.
    args.positions.as_deref().map(plot::Format::of).transpose()?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let text = checkpoint.config().to_toml()?;
    let origin = checkpoint.path().display().to_string();
    let config = Config::from_toml_str(&text, &origin, &args.overrides)?;
    let corpus = Corpus::open_with(&config.data, checkpoint.vocabulary_for(&config.data)?)?;
    corpus.check_vocabulary(config.model.num_tokens)?;

    let seq_len = args.seq_len.map_or(config.train.seq_len, |n| n as usize);
    // Rows of a training batch fit in memory; longer windows take proportionally fewer.
    let rows = (config.train.batch_size * config.train.seq_len / seq_len).max(1);
    if args.whole {
        return whole(args, (&checkpoint, &config), &corpus, seq_len, rows);
    }
    let count = args.windows.map_or(config.train.validate_windows, |n| n as usize);
    let windows = fixed_windows(&corpus, args.split, count, seq_len)?;
    for &weights in &args.weights {
        let mut model = checkpoint.model(device(&args.device)?)?;
        quantize(&mut model, weights.into())?;
        let validation = validate(&model, &windows, rows, config.train.loss_on)?;
        print_line(&format!(
            "{}/bpc {:.4}  ({}, {}{count} windows of {seq_len} tokens{}, each from an empty state; \
             step {}, weights {})",
            args.split,
            validation.bpc(corpus.tokens(args.split).bytes_per_token()),
            config.data.source,
            of_answers(&config),
            of_bytes(&corpus, args),
            checkpoint.progress().step,
            model.weight_kind(),
        ))?;
        print_accuracy(args, validation.answers)?;
    }
    Ok(())
}

/// What the mean is over, where that is not everything.
fn of_answers(config: &Config) -> &'static str {
    match config.train.loss_on {
        LossOn::All => "",
        LossOn::Answers => "answers alone, ",
    }
}

/// How bits a token became bits a byte, where that is not the same.
fn of_bytes(corpus: &Corpus, args: &EvalArgs) -> String {
    if corpus.vocabulary().is_bytes() {
        return String::new();
    }
    format!(" of {:.3} bytes", corpus.tokens(args.split).bytes_per_token())
}

/// Of a synthetic task, a line more.
fn print_accuracy(args: &EvalArgs, accuracy: Option<Accuracy>) -> Result<(), CliError> {
    let Some(accuracy) = accuracy else { return Ok(()) };
    print_line(&format!(
        "{}/accuracy {:.4}  ({} of {} answer bytes; whole answers {:.4}, {} of {} lines)",
        args.split,
        accuracy.of_tokens(),
        accuracy.right_tokens,
        accuracy.tokens,
        accuracy.of_lines(),
        accuracy.right_lines,
        accuracy.lines,
    ))
}

/// The split from its first byte to its last.
fn whole(
    args: &EvalArgs,
    (checkpoint, config): (&Checkpoint, &Config),
    corpus: &Corpus,
    seq_len: usize,
    rows: usize,
) -> Result<(), CliError> {
    let stride = args.stride.map_or(seq_len, |stride| stride as usize);
    if stride > seq_len {
        return Err(CliError::Usage(format!(
            "--stride {stride} is more than --seq-len {seq_len}: tokens between two windows would not be predicted"
        )));
    }
    let context = if args.carry { Context::Carried } else { Context::Windows { stride } };
    let loss_on = config.train.loss_on;
    let tokens = corpus.tokens(args.split);
    let unit = if corpus.vocabulary().is_bytes() { "bytes" } else { "tokens" };
    let (knows, options) = match context {
        // The state is small; what is read at once is as long as full speed takes.
        Context::Carried => (
            "the state carried".to_owned(),
            Options { seq_len: seq_len.max(4096), context, rows: 1, loss_on },
        ),
        Context::Windows { stride } => {
            let knows = format!("windows of {seq_len} at a stride of {stride}");
            (knows, Options { seq_len, context, rows, loss_on })
        }
    };
    for &weights in &args.weights {
        let mut model = checkpoint.model(device(&args.device)?)?;
        quantize(&mut model, weights.into())?;
        let bar = bar(tokens.len());
        let evaluation = evaluate(&model, tokens, &options, &mut |done, _| bar.set_position(done))?;
        bar.finish_and_clear();
        print_line(&format!(
            "{}/bpc {:.4} +- {:.4}  ({}, {}{} {unit}{}, {knows}; step {}, weights {})",
            args.split,
            evaluation.bpc,
            evaluation.error,
            config.data.source,
            of_answers(config),
            evaluation.tokens,
            of_bytes(corpus, args),
            checkpoint.progress().step,
            model.weight_kind(),
        ))?;
        print_accuracy(args, evaluation.answers)?;
        if let Some(path) = &args.positions {
            let title = format!("{}, {}", args.checkpoint.display(), args.split);
            plot::by_position(&evaluation.by_position, unit, &title, path)?;
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
