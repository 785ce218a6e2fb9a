//! What the program takes, with its help texts.

use crate::config::WeightsVariant;
use crate::data::Split;
use crate::metrics::plot::Axis;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Train GateLoop language models and write text with them.
///
/// Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration, 130 interrupted (a
/// checkpoint was written).
#[derive(Debug, Parser)]
#[command(name = "gateloop", version, arg_required_else_help = true)]
pub struct Cli {
    /// Show what is done in more detail (-v) or in all detail (-vv), on standard error.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model in a new run folder, or go on with a run.
    ///
    /// The folder holds config.toml (resolved), metrics.jsonl, loss.svg, gates.svg, samples/ and checkpoints/.
    /// Ctrl-C finishes the step, writes a checkpoint and says how to go on; a second Ctrl-C stops
    /// at once.
    Train(TrainArgs),
    /// Write text that goes on from a prompt; only the text goes to standard output.
    Generate(GenerateArgs),
    /// Measure bits per character (byte) of a checkpoint over a split of its data, and of a synthetic task the accuracy.
    Eval(EvalArgs),
    /// Show a model: its configuration, its parameters by part, the size of its decoding state.
    Info(InfoArgs),
    /// Draw the learning curves of runs into one picture, or how long the gates of a run remember.
    Plot(PlotArgs),
    /// List runs: how far they are and their best validation.
    Runs(RunsArgs),
    /// Data sets.
    Data {
        /// What to do with them.
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Make a run of the weights of a PyTorch or JAX reference model.
    ///
    /// The model's configuration is told from the names and shapes; what they leave open is asked for.
    /// The run can be sampled, evaluated, and trained on with `train --resume`.
    Import(ImportArgs),
    /// Write a checkpoint's weights for the PyTorch or the JAX reference.
    Export(ExportArgs),
    /// Compute logits for given ids with given weights, to check imported checkpoints.
    Logits(LogitsArgs),
}

/// `gateloop import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A PyTorch state_dict (.safetensors) or a JAX model (.npz or .safetensors by name, .eqx from
    /// equinox.tree_serialise_leaves).
    #[arg(value_name = "WEIGHTS")]
    pub weights: PathBuf,
    /// Folder of the run to be made.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Delete the run in --out first, if there is one.
    #[arg(long)]
    pub overwrite: bool,
    /// Give a key of the configuration that the weights do not tell, as in model.heads=8; may be
    /// repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// `gateloop export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run folder (its newest checkpoint) or a checkpoint file.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    /// The file to write: .safetensors, for JAX also .npz or .eqx.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Whose names and shapes [default: jax for .npz and .eqx, else pytorch].
    #[arg(long, value_name = "NAME")]
    pub layout: Option<LayoutName>,
}

/// The implementations that weights are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LayoutName {
    /// gateloop_transformer.Transformer
    Pytorch,
    /// gateloop_transformer.gateloop_transformer_jax.GateLoopTransformer
    Jax,
}

/// `gateloop train`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct TrainArgs {
    /// Configuration (TOML). Without one: the reference's defaults; with --resume: the run's own.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the run [default: runs/NAME, after the configuration].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in --out from its newest whole checkpoint.
    #[arg(long, requires = "out", conflicts_with = "overwrite")]
    pub resume: bool,
    /// With --resume: go on even if the data is not what it was.
    #[arg(long, requires = "resume")]
    pub allow_changed_data: bool,
    /// Delete the run in --out first, if there is one.
    #[arg(long)]
    pub overwrite: bool,
    /// Show the run on the whole screen: curves, figures, gates, the newest sample, the log. q stops it
    /// as Ctrl-C does. Needs a terminal.
    #[arg(long)]
    pub tui: bool,
    /// Override a key of the configuration, as in train.steps=100; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// `gateloop generate`
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// A run folder (its newest checkpoint) or a checkpoint file.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    /// The text to go on from.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "prompt_file",
        required_unless_present_any = ["prompt_file", "load_state", "interactive"]
    )]
    pub prompt: Option<OsString>,
    /// A file of any bytes to go on from; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Tokens to write [default: generate.tokens of the configuration].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens: Option<u64>,
    /// Divides the logits: below 1 is bolder, above 1 is wilder, 0 always takes the most likely
    /// token [default: generate.temperature].
    #[arg(long, value_name = "X")]
    pub temperature: Option<f64>,
    /// Share of the vocabulary, the least likely, that is never drawn [default:
    /// generate.filter_thres].
    #[arg(long, value_name = "X")]
    pub filter_thres: Option<f64>,
    /// Draw from so many of the likeliest tokens [default: generate.top_k].
    #[arg(long, value_name = "N", conflicts_with = "filter_thres")]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that make up so much of the probability [default: generate.top_p].
    #[arg(long, value_name = "X")]
    pub top_p: Option<f64>,
    /// Draw from tokens at least so many times as likely as the likeliest [default: generate.min_p].
    #[arg(long, value_name = "X")]
    pub min_p: Option<f64>,
    /// Make tokens of the last generate.repetition_window less likely: above 1 [default:
    /// generate.repetition_penalty].
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f64>,
    /// A text that ends the writing and is not part of it; may be repeated [default: generate.stop].
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Write a text in turn with lines read from standard input, all of it one context.
    #[arg(long, conflicts_with_all = ["samples", "raw"])]
    pub interactive: bool,
    /// Keep the state of the text in a file at the end, to go on from it later.
    #[arg(long, value_name = "FILE", conflicts_with = "samples")]
    pub save_state: Option<PathBuf>,
    /// Go on from a state that --save-state kept, before any prompt is read.
    #[arg(long, value_name = "FILE")]
    pub load_state: Option<PathBuf>,
    /// Seed of the draws [default: generate.seed, or else a new one each time].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Texts to write from the same prompt, each drawn on its own; they are written together, which
    /// costs little more than one, and printed one after the other at the end.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub samples: u64,
    /// How the weights are kept: fewer bytes are read faster and cost some precision [default:
    /// generate.weights].
    #[arg(long, value_name = "KIND")]
    pub weights: Option<WeightsVariant>,
    /// Where to compute: cpu, cuda, cuda:N or auto. One text at a time keeps no GPU busy; many do.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Say at the end, on standard error, how fast it was.
    #[arg(long)]
    pub stats: bool,
    /// Write the bytes as they are, not as printable text.
    #[arg(long, conflicts_with = "samples")]
    pub raw: bool,
}

/// `gateloop eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run folder (its newest checkpoint) or a checkpoint file.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    /// Part of the data: train, valid or test.
    #[arg(long, default_value = "valid", value_parser = parse_split)]
    pub split: Split,
    /// Evenly spaced windows [default: train.validate_windows, what training validates on].
    #[arg(long, value_name = "N", conflicts_with = "whole", value_parser = clap::value_parser!(u64).range(1..))]
    pub windows: Option<u64>,
    /// Predict every token of the split but the first, and give the mean with its 95 % confidence interval.
    #[arg(long)]
    pub whole: bool,
    /// With --whole: carry the state from window to window, so that a prediction knows all of the text before it.
    #[arg(long, requires = "whole")]
    pub carry: bool,
    /// With --whole: begin a window every N tokens; what it shares with the one before is context only
    /// [default: --seq-len, no overlap].
    #[arg(long, value_name = "N", requires = "whole", conflicts_with = "carry", value_parser = clap::value_parser!(u64).range(1..))]
    pub stride: Option<u64>,
    /// With --whole: draw the mean by the place in the window (.svg or .png). Does context help?
    #[arg(long, value_name = "FILE", requires = "whole", conflicts_with_all = ["carry", "stride"])]
    pub positions: Option<PathBuf>,
    /// Tokens of a window, which is also the longest context [default: train.seq_len].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seq_len: Option<u64>,
    /// How the weights are kept; may be repeated, for a figure each.
    #[arg(long, value_name = "KIND", default_value = "f32")]
    pub weights: Vec<WeightsVariant>,
    /// Where to compute: cpu, cuda, cuda:N or auto.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Override a key of the checkpoint's configuration, as in data.source=FILE; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// `gateloop info`
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct InfoArgs {
    /// A run folder (its newest checkpoint) or a checkpoint file.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,
    /// A configuration (TOML), without weights.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `gateloop plot`
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Run folders, or files of metrics.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The picture to write, .svg or .png [default: loss.svg, with --gates gates.svg].
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How long the gates of each layer of one run remember, in place of its learning curve.
    #[arg(long, conflicts_with = "by")]
    pub gates: bool,
    /// What the curves are drawn against.
    #[arg(long, value_name = "AXIS", default_value = "step")]
    pub by: Axis,
}

/// `gateloop runs`
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Folders that hold run folders, or run folders themselves.
    #[arg(value_name = "DIR", default_value = "runs")]
    pub folders: Vec<PathBuf>,
}

/// `gateloop data`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Fetch a data set, unless it is there already, and print where it is.
    Fetch {
        /// Which one: the first 100 million bytes of an English Wikipedia dump.
        #[arg(value_parser = ["enwik8"])]
        name: String,
    },
}

/// `gateloop logits`
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// Configuration (TOML) whose `[model]` describes the weights.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Weights of a PyTorch or JAX reference model, as `gateloop import` reads them.
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Token ids (safetensors): `ids`, I64 [B, T].
    #[arg(long, value_name = "FILE")]
    pub ids: PathBuf,
    /// Where the logits go (safetensors): `logits`, F32 [B, T, V].
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Override a key of the configuration, as in model.ablate_complex=true; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

fn parse_split(name: &str) -> Result<Split, String> {
    name.parse().map_err(|error: crate::data::DataError| error.to_string())
}
