//! What a person sees of a run: a bar on a terminal, plain lines elsewhere; all on standard error.

use crate::metrics::Record;
use crate::train::{Observer, Tick};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Shows a run.
pub(super) struct Reporter {
    bar: Option<ProgressBar>,
    started: Option<(Instant, u64)>,
    last: Option<Tick>,
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
        Self { bar, started: None, last: None, valid_bpc: None }
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

    /// Seconds a step, over this part of the run.
    fn seconds_left(&self) -> Option<f64> {
        let (begun, first_step) = self.started?;
        let tick = self.last?;
        let done = tick.step.checked_sub(first_step).filter(|done| *done > 0)?;
        let per_step = begun.elapsed().as_secs_f64() / done as f64;
        Some(per_step * tick.steps.saturating_sub(tick.step) as f64)
    }
}

impl Observer for Reporter {
    fn tick(&mut self, tick: &Tick) {
        let (begun, first_step) = *self.started.get_or_insert((Instant::now(), tick.step));
        self.last = Some(*tick);
        if let Some(bar) = &self.bar {
            let steps = tick.step - first_step;
            let rate = (steps * tick.tokens) as f64 / begun.elapsed().as_secs_f64().max(1e-9);
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
        let left = self.seconds_left().map(|s| format!("  {} left", clock(s))).unwrap_or_default();
        let of = self.last.map(|tick| format!("/{}", tick.steps)).unwrap_or_default();
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

/// Seconds as h:mm:ss or m:ss.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}
