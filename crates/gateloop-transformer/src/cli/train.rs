//! `gateloop train`

use super::args::TrainArgs;
use super::reporter::Reporter;
use super::tui::{self, Tui};
use super::{CliError, log, print_line};
use crate::config::Config;
use crate::metrics;
use crate::ranks::Ranks;
use crate::train::{
    ChangedData, ExistingFolder, Interrupt, Observer, Outcome, Quiet, Run, RunFolder, Summary,
    TrainError,
};
use gateloop_dist::Environment;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn run(args: &TrainArgs) -> Result<(), CliError> {
    let out = args.out.clone().unwrap_or_else(|| default_folder(args.config.as_deref()));
    let config = config(args, &out)?;
    set_threads(config.train.threads);
    let ranks = Arc::new(Ranks::from_env(&config).map_err(TrainError::from)?);
    let result = run_on(args, &out, &config, &ranks);
    // A rank that ends by itself tells the others, which would otherwise wait for it.
    result.inspect_err(|error| ranks.fail(&error.to_string()))
}

/// The work of one of several ranks; only the first one shows and says what goes well.
fn run_on(
    args: &TrainArgs,
    out: &Path,
    config: &Config,
    ranks: &Arc<Ranks>,
) -> Result<(), CliError> {
    if args.tui && ranks.is_first() {
        tui::check_terminal()?;
    }
    // Notes of a resumption come before the bar, which needs to know the step.
    let mut notes = Notes::default();
    // Whoever starts a run again after a failure means it to go on, and nothing to be deleted.
    let is_again = Environment::is_restart() && RunFolder::existing(out).is_ok();
    let way = if args.resume || is_again { "resume" } else { "start" };
    // The folder may be there by the time that another rank looks.
    let mut run = if ranks.hear_first("way", way).map_err(TrainError::from)? == "resume" {
        let changed =
            if args.allow_changed_data { ChangedData::Allow } else { ChangedData::Refuse };
        Run::resume_on(ranks, out, config, changed, &mut notes)?
    } else {
        let existing = if args.overwrite { ExistingFolder::Replace } else { ExistingFolder::Keep };
        Run::start_on(ranks, out, config, existing)?
    };
    let interrupt = Interrupt::default();
    let introduction = introduction(&run, config, ranks);
    let introduced = |observer: &mut dyn Observer| {
        notes.0.iter().for_each(|note| observer.note(note));
        observer.note(&introduction);
    };
    stop_on_signals(&interrupt, args.tui);
    if !ranks.is_first() {
        let summary = run.train(&mut Quiet, &interrupt)?;
        return match summary.outcome {
            Outcome::Finished => Ok(()),
            Outcome::Interrupted => Err(CliError::Interrupted),
        };
    }
    let steps = (run.steps_done(), config.train.steps);
    let result = if args.tui {
        let earlier = metrics::read(run.folder().metrics())?;
        let mut view = Tui::new(out.display().to_string(), steps, &earlier, &interrupt)?;
        introduced(&mut view);
        let result = run.train(&mut view, &interrupt);
        view.finish();
        result
    } else {
        let mut reporter = Reporter::new(steps.0, steps.1);
        introduced(&mut reporter);
        let result = run.train(&mut reporter, &interrupt);
        reporter.finish();
        result
    };
    match result {
        Ok(summary) => conclude(&run, &summary),
        Err(error) => {
            let kept = match run.last_checkpoint() {
                Some(path) => format!("the last checkpoint is whole: {}", path.display()),
                None => "no checkpoint had been written yet".to_owned(),
            };
            let _ = writeln!(std::io::stderr(), "{kept}");
            Err(error.into())
        }
    }
}

/// The given configuration; for a resumed run without one, the run's own.
fn config(args: &TrainArgs, out: &Path) -> Result<Config, CliError> {
    Ok(match &args.config {
        Some(path) => Config::load(path, &args.overrides)?,
        None if args.resume => Config::load(RunFolder::existing(out)?.config(), &args.overrides)?,
        None => Config::from_toml_str("", "the defaults", &args.overrides)?,
    })
}

fn default_folder(config: Option<&Path>) -> PathBuf {
    let name = config.and_then(Path::file_stem).unwrap_or("default".as_ref());
    Path::new("runs").join(name)
}

fn set_threads(threads: usize) {
    if threads > 0 {
        tch::set_num_threads(threads as i32);
        tch::set_num_interop_threads(1);
    }
}

fn introduction(run: &Run, config: &Config, ranks: &Ranks) -> String {
    let parameters: usize = run.model().parameters().values().map(tch::Tensor::numel).sum();
    let on = match ranks.count() {
        1 => String::new(),
        count => format!(" on {count} ranks"),
    };
    format!(
        "{:.2}M parameters, {} tokens a step{on}, {} steps; {}; run folder {}",
        parameters as f64 / 1e6,
        run.tokens_per_step(),
        config.train.steps,
        run.corpus().describe(),
        run.folder().path().display(),
    )
}

/// The first signal ends the run after its step, a second one ends the program.
fn stop_on_signals(interrupt: &Interrupt, has_the_screen: bool) {
    let interrupt = interrupt.clone();
    let installed = ctrlc::set_handler(move || {
        if interrupt.request() {
            if has_the_screen {
                tui::give_back();
            }
            std::process::exit(130);
        }
        log::say("\nfinishing this step and writing a checkpoint; once more stops at once");
    });
    if let Err(error) = installed {
        tracing::warn!(
            "signals are not handled, an interruption loses the steps since the last checkpoint: {error}"
        );
    }
}

fn conclude(run: &Run, summary: &Summary) -> Result<(), CliError> {
    let folder = run.folder().path().display();
    if let Some(path) = &summary.checkpoint {
        print_line(&format!("checkpoint {}", path.display()))?;
    }
    match summary.outcome {
        Outcome::Finished => {
            print_line(&format!("loss curve {}", run.folder().plot().display()))?;
            let bpc = summary.valid_bpc.map(|bpc| format!(", valid/bpc {bpc:.4}"));
            print_line(&format!(
                "done: {} steps in {:.0} s{}",
                summary.step,
                summary.time_s,
                bpc.unwrap_or_default()
            ))
        }
        Outcome::Interrupted => {
            print_line(&format!(
                "stopped after step {}; go on with: gateloop train --out {folder} --resume",
                summary.step
            ))?;
            Err(CliError::Interrupted)
        }
    }
}

/// Keeps what a resumption has to say.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}
