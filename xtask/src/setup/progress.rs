//! How far a long step has come: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::table::size;

/// Seconds between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(4);

/// Progress over a number of bytes that is known in advance.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    total: u64,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { start: Instant, last: Instant },
}

impl Progress {
    pub(crate) fn new(label: String, total: u64) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_message(label.clone());
            let template = "{msg:36} {bar:24} {bytes:>10}/{total_bytes} {bytes_per_sec} {eta}";
            // The template is a constant; should it not parse, the plain bar will do.
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            Shown::Bar(bar)
        } else {
            eprintln!("{label} ({})", size(total));
            Shown::Lines { start: Instant::now(), last: Instant::now() }
        };
        Self { label, total, shown }
    }

    pub(crate) fn set(&mut self, done: u64) {
        let done = done.min(self.total);
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines { last, .. } if last.elapsed() >= PAUSE => {
                *last = Instant::now();
                let percent = done * 100 / self.total.max(1);
                eprintln!("{}: {} of {}, {percent} %", self.label, size(done), size(self.total));
            }
            Shown::Lines { .. } => {}
        }
    }

    /// Only called on success, so that a failed step does not claim 100 %.
    pub(crate) fn finish(self) {
        match self.shown {
            Shown::Bar(bar) => {
                bar.set_position(self.total);
                bar.finish();
            }
            Shown::Lines { start, .. } => {
                eprintln!("{}: done in {:.1} s", self.label, start.elapsed().as_secs_f64());
            }
        }
    }
}
