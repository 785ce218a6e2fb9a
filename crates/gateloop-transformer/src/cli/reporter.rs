//! What a person sees of a run: a bar on a terminal, plain lines elsewhere; all on standard error.

use super::pace::{Pace, clock};
use crate::metrics::Record;
use crate::train::{Observer, Tick};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};

/// Shows a run.
pub(super) struct Reporter {
    bar: Option<ProgressBar>,
    pace: Pace,
    valid_bpc: Option<f64>,
}

impl Reporter {
    /// `done` of `steps` steps are done already.
    pub(super) fn new(done: u64, steps: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "{bar:24.cyan/blue} {pos}/{len}  {msg}  {elapsed} of {duration}, {eta} left",
            );
            // The template is a constant of this program; the default style is the fallback.
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        Self { bar, pace: Pace::default(), valid_bpc: None }
    }

    /// Removes the bar, leaving its last state on the screen.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}

impl Observer for Reporter {
    fn tick(&mut self, tick: &Tick) {
        self.pace.tick(tick);
        if let Some(bar) = &self.bar {
            let rate = self.pace.tokens_per_s().unwrap_or(0.0);
            let valid = self.valid_bpc.map(|bpc| format!("  valid {bpc:.3}")).unwrap_or_default();
            bar.set_message(format!(
                "loss {:.3}  bpc {:.3}{valid}  {rate:.0} tokens/s",
                tick.loss, tick.bpc,
            ));
            bar.set_position(tick.step);
        }
    }

    fn record(&mut self, record: &Record) {
        let value = |key: &str| record.values.get(key).copied();
        self.valid_bpc = value("valid/bpc").or(self.valid_bpc);
        let valid = value("valid/bpc").map(|bpc| format!("  valid {bpc:.4} bpc"));
        if self.bar.is_some() {
            if let Some(valid) = valid {
                self.print(&format!("step {}{valid}", record.step));
            }
            return;
        }
        let (loss, rate) = (value("train/loss"), value("tokens_per_s"));
        let left =
            self.pace.seconds_left().map(|s| format!("  {} left", clock(s))).unwrap_or_default();
        let of = self.pace.last().map(|tick| format!("/{}", tick.steps)).unwrap_or_default();
        self.print(&format!(
            "step {}{of}  loss {:.4}  bpc {:.4}  {:.0} tokens/s{left}{}",
            record.step,
            loss.unwrap_or(f64::NAN),
            value("train/bpc").unwrap_or(f64::NAN),
            rate.unwrap_or(f64::NAN),
            valid.unwrap_or_default(),
        ));
    }

    fn note(&mut self, text: &str) {
        self.print(text);
    }

    fn sample(&mut self, step: u64, text: &str) {
        self.print(&format!("--- sample at step {step} ---\n{text}\n---"));
    }
}
