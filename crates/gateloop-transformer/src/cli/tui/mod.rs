//! `gateloop train --tui`: a run on the whole screen.
//!
//! A thread of its own draws and reads keys, so that neither waits for a long step. The terminal is given back when the
//! view ends, however it ends.

mod state;
mod view;

use super::{CliError, log};
use crate::metrics::Record;
use crate::train::{Interrupt, Observer, Tick};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute};
use state::State;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two frames.
const FRAME: Duration = Duration::from_millis(200);

/// A run on the whole screen.
pub(super) struct Tui {
    shared: Arc<Shared>,
    drawing: Option<JoinHandle<io::Result<()>>>,
}

struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the terminal back as it was. Drawing hides the cursor.
pub(super) fn give_back() {
    ratatui::restore();
    // A terminal that is gone needs no cursor.
    let _ = execute!(io::stdout(), cursor::Show);
}

/// Refuses what is no terminal, before anything is done.
pub(super) fn check_terminal() -> Result<(), CliError> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return Ok(());
    }
    let problem = "--tui needs a terminal for input and output: leave it out where either is a file or a pipe";
    Err(CliError::Usage(problem.to_owned()))
}

impl Tui {
    /// Takes the screen. `earlier` is what the run had recorded before; `interrupt` is what the keys ask.
    pub(super) fn new(
        title: String,
        (done, steps): (u64, u64),
        earlier: &[Record],
        interrupt: &Interrupt,
    ) -> Result<Self, CliError> {
        let mut state = State { title, step: done, steps, ..State::default() };
        for record in earlier {
            state.record(record);
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), over: AtomicBool::new(false) });
        // Sets a panic hook, too, which gives the terminal back before the panic is reported.
        let terminal = ratatui::try_init().map_err(|source| {
            give_back();
            CliError::Io { action: "take", what: "the terminal".to_owned(), source }
        })?;
        let lines = Arc::clone(&shared);
        log::send_to(move |line| lines.state().say(line));
        let (of_thread, interrupt) = (Arc::clone(&shared), interrupt.clone());
        let drawing = thread::spawn(move || show(terminal, &of_thread, &interrupt));
        Ok(Self { shared, drawing: Some(drawing) })
    }

    /// Gives the screen back and leaves the log on it.
    pub(super) fn finish(&mut self) {
        let Some(drawing) = self.drawing.take() else { return };
        self.shared.over.store(true, Ordering::Relaxed);
        let ended = drawing.join();
        give_back();
        log::send_to_stderr();
        self.shared.state().log.iter().for_each(|line| log::say(line));
        if let Ok(Err(error)) = ended {
            log::say(&format!("the view ended early, the run did not: {error}"));
        }
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Draws and reads keys until the run is over.
fn show(mut terminal: DefaultTerminal, shared: &Shared, interrupt: &Interrupt) -> io::Result<()> {
    while !shared.over.load(Ordering::Relaxed) {
        terminal.draw(|frame| view::draw(frame, &shared.state()))?;
        if event::poll(FRAME)?
            && let Event::Key(key) = event::read()?
        {
            match asked(key) {
                Some(Asked::Stop) => drop(interrupt.request()),
                Some(Asked::Signal) if interrupt.request() => {
                    give_back();
                    std::process::exit(130);
                }
                _ => continue,
            }
            shared.state().stopping = true;
        }
    }
    Ok(())
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// To stop after this step.
    Stop,
    /// The same; the second time, at once. The terminal makes no signal of Ctrl-C while a view has it.
    Signal,
}

fn asked(key: KeyEvent) -> Option<Asked> {
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Asked::Signal),
        KeyCode::Char('q' | 'Q') => Some(Asked::Stop),
        _ => None,
    }
}

impl Observer for Tui {
    fn tick(&mut self, tick: &Tick) {
        self.shared.state().tick(tick);
    }

    fn record(&mut self, record: &Record) {
        let mut state = self.shared.state();
        state.record(record);
        if let Some(bpc) = record.values.get("valid/bpc") {
            state.say(&format!("step {}  valid {bpc:.4} bpc", record.step));
        }
    }

    fn note(&mut self, text: &str) {
        let mut state = self.shared.state();
        text.lines().for_each(|line| state.say(line));
    }

    fn sample(&mut self, step: u64, text: &str) {
        self.shared.state().sample(step, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_control_c_stop_a_run() {
        let key = |code, modifiers| asked(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Asked::Stop));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Asked::Signal));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        let released = KeyEvent {
            kind: KeyEventKind::Release,
            ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)
        };
        assert_eq!(asked(released), None);
    }
}
