//! Where the program's own words go: standard error, or, while the screen belongs to a view, that view.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Sink = Box<dyn Fn(&str) + Send>;

/// The terminal is one for the process, and so is this.
static SINK: Mutex<Option<Sink>> = Mutex::new(None);

fn sink() -> MutexGuard<'static, Option<Sink>> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends lines to a view from now on.
pub(super) fn send_to(view: impl Fn(&str) + Send + 'static) {
    *sink() = Some(Box::new(view));
}

/// Sends lines to standard error again.
pub(super) fn send_to_stderr() {
    *sink() = None;
}

/// Says one or several lines. A reader that has gone away is no reason to stop.
pub(super) fn say(text: &str) {
    match &*sink() {
        Some(view) => text.lines().for_each(view),
        None => {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// What the log's formatter writes to, an event at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*sink() {
            Some(view) => String::from_utf8_lossy(bytes).lines().for_each(view),
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
