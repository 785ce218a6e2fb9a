//! How fast a run goes and how long it will still take.

use crate::train::Tick;
use std::time::Instant;

/// The ticks of this part of a run.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the first step of this part was done, and which it was.
    started: Option<(Instant, u64)>,
    last: Option<Tick>,
}

impl Pace {
    pub(super) fn tick(&mut self, tick: &Tick) {
        self.started.get_or_insert((Instant::now(), tick.step));
        self.last = Some(*tick);
    }

    pub(super) fn last(&self) -> Option<&Tick> {
        self.last.as_ref()
    }

    /// Seconds a step; none before the second step.
    fn seconds_a_step(&self) -> Option<f64> {
        let (begun, first_step) = self.started?;
        let done = self.last?.step.checked_sub(first_step).filter(|done| *done > 0)?;
        Some(begun.elapsed().as_secs_f64() / done as f64)
    }

    /// Tokens a second, everything between the steps included.
    pub(super) fn tokens_per_s(&self) -> Option<f64> {
        Some(self.last?.tokens as f64 / self.seconds_a_step()?.max(1e-9))
    }

    /// Seconds to the last step.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let tick = self.last?;
        Some(self.seconds_a_step()? * tick.steps.saturating_sub(tick.step) as f64)
    }
}

/// Seconds as h:mm:ss or m:ss.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}
