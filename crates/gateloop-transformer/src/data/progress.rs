//! What a person sees while a file is fetched.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How long work reports itself on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A bar that redraws itself.
    Bar,
    /// A plain line every few seconds.
    Lines,
    /// Nothing.
    Silent,
}

/// One piece of work under way.
#[derive(Debug)]
pub(super) struct Meter {
    label: String,
    total: Option<u64>,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { next: Instant },
    Nothing,
}

/// Often enough to show life in a log, seldom enough not to fill it.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

impl Meter {
    /// Starts a meter of bytes; without a total it only shows life.
    pub(super) fn start(progress: Progress, label: impl Into<String>, total: Option<u64>) -> Self {
        let label = label.into();
        let bar = match progress {
            Progress::Auto => std::io::stderr().is_terminal(),
            Progress::Bar => true,
            Progress::Lines | Progress::Silent => false,
        };
        let shown = if progress == Progress::Silent {
            Shown::Nothing
        } else if bar {
            Shown::Bar(new_bar(&label, total))
        } else {
            eprintln!("{label} ...");
            Shown::Lines { next: Instant::now() + LINE_INTERVAL }
        };
        Self { label, total, shown }
    }

    /// Tells how many bytes there are in all, once that is known.
    pub(super) fn set_total(&mut self, total: u64) {
        if self.total == Some(total) {
            return;
        }
        self.total = Some(total);
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
            self.shown = Shown::Bar(new_bar(&self.label, self.total));
        }
    }

    /// Tells how many bytes are done.
    pub(super) fn at(&mut self, done: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines { next } if Instant::now() >= *next => {
                *next = Instant::now() + LINE_INTERVAL;
                let share = self.total.map(|total| format!(" of {} MB", total / 1_000_000));
                eprintln!("{}: {} MB{}", self.label, done / 1_000_000, share.unwrap_or_default());
            }
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(label: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
    };
    // A template that does not parse would cost the style, not the work.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    bar.set_style(style);
    bar.set_message(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
