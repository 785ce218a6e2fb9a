//! Running other programs so that a signal reaches the right one.
//!
//! A terminal sends Ctrl-C to the whole process group, so the child gets it without our help and
//! may take its time, to write a checkpoint for instance. We only have to outlive it. A request to
//! terminate goes to one process, so that one is handed on.
//!
//! A worker is a child that is asked line by line and has nothing to save: any signal kills it, and
//! whatever it has started.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Runs children one after the other; the first signal ends the series.
#[derive(Debug)]
pub(crate) struct Children {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    interrupted: AtomicBool,
    /// The running child, 0 when there is none.
    pid: AtomicI32,
    /// The process groups of the workers.
    workers: Mutex<Vec<Pid>>,
}

impl State {
    fn workers(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill_workers(&self) {
        for group in self.workers().iter() {
            // It may have ended a moment ago.
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }
}

impl Children {
    /// From here on, Ctrl-C no longer ends this program by itself.
    pub(crate) fn new() -> Result<Self> {
        let state = Arc::new(State::default());
        let mut signals =
            Signals::new([SIGINT, SIGTERM]).map_err(|source| Error::Signals { source })?;
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for signal in signals.forever() {
                shared.interrupted.store(true, Ordering::SeqCst);
                shared.kill_workers();
                let child = Pid::from_raw(shared.pid.load(Ordering::SeqCst));
                if let (SIGTERM, Some(child)) = (signal, child) {
                    // It may have ended a moment ago; then there is nobody left to tell.
                    let _ = kill_process(child, Signal::TERM);
                }
            }
        });
        Ok(Self { state })
    }

    /// Runs `command` to its end with the output going straight to the terminal.
    pub(crate) fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        let child = self.spawn(what, command)?;
        self.wait(what, child)
    }

    /// Runs `command` to its end and hands over its standard output line by line.
    pub(crate) fn run_lines(
        &self,
        what: &str,
        command: &mut Command,
        mut each: impl FnMut(&str),
    ) -> Result<()> {
        let mut child = self.spawn(what, command.stdout(Stdio::piped()))?;
        if let Some(out) = child.stdout.take() {
            // A test may print what is not UTF-8; that must not end the run.
            for line in BufReader::new(out).split(b'\n').map_while(std::io::Result::ok) {
                each(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            }
        }
        self.wait(what, child)
    }

    /// Errs once a signal has come.
    pub(crate) fn check_interrupted(&self, what: &str) -> Result<()> {
        if self.state.interrupted.load(Ordering::SeqCst) {
            return Err(Error::Interrupted { what: what.to_owned(), code: 130 });
        }
        Ok(())
    }

    /// Starts a worker in a process group of its own.
    pub(crate) fn start_worker(&self, what: &str, command: &mut Command) -> Result<Child> {
        self.check_interrupted(what)?;
        let child = command.process_group(0).spawn().map_err(|source| Error::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        self.state.workers().extend(group(&child));
        // A signal in between has not seen it.
        if self.state.interrupted.load(Ordering::SeqCst) {
            self.state.kill_workers();
        }
        Ok(child)
    }

    /// Ends a worker and whatever it has started.
    pub(crate) fn stop_worker(&self, child: &mut Child) {
        if let Some(group) = group(child) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
            self.state.workers().retain(|other| *other != group);
        }
        let _ = child.wait();
    }

    fn spawn(&self, what: &str, command: &mut Command) -> Result<Child> {
        self.check_interrupted(what)?;
        let child = command.spawn().map_err(|source| Error::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        self.state.pid.store(child.id().cast_signed(), Ordering::SeqCst);
        Ok(child)
    }

    fn wait(&self, what: &str, mut child: Child) -> Result<()> {
        let status = child.wait();
        self.state.pid.store(0, Ordering::SeqCst);
        let status = status.map_err(|source| Error::Spawn { program: what.to_owned(), source })?;
        let code = exit_code(status);
        if self.state.interrupted.load(Ordering::SeqCst) {
            return Err(Error::Interrupted { what: what.to_owned(), code });
        }
        match code {
            0 => Ok(()),
            code => Err(Error::Child { what: what.to_owned(), code }),
        }
    }
}

/// A worker leads its process group.
fn group(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

/// The code a shell would report: 128 plus the signal for a child that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_exit_code_of_a_failed_child_is_passed_on() {
        let children = Children::new().unwrap();
        assert!(children.run("true", &mut shell("exit 0")).is_ok());
        assert_eq!(children.run("it", &mut shell("exit 7")).unwrap_err().exit_code(), 7);
        let killed = children.run("it", &mut shell("kill -9 $$")).unwrap_err();
        assert_eq!(killed.exit_code(), 137);
        assert!(matches!(
            children.run("it", &mut Command::new("/no/such/program")),
            Err(Error::Spawn { .. })
        ));
    }

    #[test]
    fn a_stopped_worker_takes_its_own_children_along() {
        let children = Children::new().unwrap();
        let mut command = shell("sleep 600 & echo started; wait");
        let mut worker = children.start_worker("it", command.stdout(Stdio::piped())).unwrap();
        let mut out = BufReader::new(worker.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        children.stop_worker(&mut worker);
        // The output ends only when nobody is left who could write to it.
        assert_eq!(out.read_line(&mut line).unwrap(), 0);
        assert!(children.state.workers().is_empty());
    }

    #[test]
    fn lines_arrive_one_by_one_even_when_they_are_not_utf8() {
        let children = Children::new().unwrap();
        let mut lines = Vec::new();
        let mut command = shell(r"printf 'one\ntw\377o\nlast'");
        children.run_lines("printf", &mut command, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "tw\u{fffd}o", "last"]);
    }
}
