//! A long-lived process that is asked line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::child::Children;
use crate::error::Result;

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Done,
    Seconds(f64),
    /// Resident bytes before the work, and the most during it.
    Peak {
        before: f64,
        peak: f64,
    },
    /// The side's answer to the work was not right.
    Wrong(String),
    /// The side cannot do it, or its process has ended.
    Absent(String),
}

/// A process with its two pipes; it ends with this value.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    children: &'a Children,
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl<'a> Worker<'a> {
    pub(crate) fn start(children: &'a Children, what: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = children.start_worker(what, command)?;
        let (sender, answers) = channel();
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let requests = child.stdin.take();
        Ok(Self { children, child, requests, answers })
    }

    /// Asks and waits for the answer, but not for ever: a worker that hangs is no use any more.
    pub(crate) fn ask(&mut self, request: &str, limit: Duration) -> (Answer, Value) {
        let absent = |why: String| (Answer::Absent(why), Value::Null);
        let sent = self.requests.as_mut().map(|pipe| writeln!(pipe, "{request}"));
        if !matches!(sent, Some(Ok(()))) {
            self.requests = None;
            return absent("its process has ended".to_owned());
        }
        match self.answers.recv_timeout(limit) {
            Ok(line) => parse(&line),
            Err(RecvTimeoutError::Timeout) => {
                self.requests = None;
                absent(format!("no answer to `{request}` in {} s", limit.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.requests = None;
                absent(format!("its process ended during `{request}`"))
            }
        }
    }

    /// Its number.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Whether it can be asked again.
    pub(crate) fn is_alive(&self) -> bool {
        self.requests.is_some()
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.children.stop_worker(&mut self.child);
    }
}

fn parse(line: &str) -> (Answer, Value) {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return (Answer::Absent(format!("it answered `{line}`")), Value::Null);
    };
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let answer = if let Some(why) = text("wrong") {
        Answer::Wrong(why)
    } else if let Some(why) = text("unavailable") {
        Answer::Absent(why)
    } else if let Some(seconds) = value["seconds"].as_f64() {
        Answer::Seconds(seconds)
    } else if let (Some(before), Some(peak)) = (value["before"].as_f64(), value["peak"].as_f64()) {
        Answer::Peak { before, peak }
    } else {
        Answer::Done
    };
    (answer, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answer = |line: &str| parse(line).0;
        assert_eq!(answer("{}"), Answer::Done);
        assert_eq!(answer(r#"{"seconds": 0.25}"#), Answer::Seconds(0.25));
        let peak = Answer::Peak { before: 1.0, peak: 2.0 };
        assert_eq!(answer(r#"{"before": 1, "peak": 2}"#), peak);
        assert_eq!(answer(r#"{"wrong": "h"}"#), Answer::Wrong("h".to_owned()));
        assert_eq!(answer(r#"{"unavailable": "no"}"#), Answer::Absent("no".to_owned()));
        assert!(matches!(answer("Traceback"), Answer::Absent(why) if why.contains("Traceback")));
    }

    #[test]
    fn a_worker_answers_until_it_ends() {
        let children = Children::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"read line; echo "{\"seconds\": 2.5}"; read line; exit 3"#]);
        let mut worker = Worker::start(&children, "it", &mut command).unwrap();
        let minute = Duration::from_mins(1);
        assert_eq!(worker.ask("time x", minute).0, Answer::Seconds(2.5));
        assert!(matches!(worker.ask("time x", minute).0, Answer::Absent(_)));
        assert!(!worker.is_alive());
    }

    #[test]
    fn a_worker_that_hangs_is_given_up() {
        let children = Children::new().unwrap();
        let mut command = Command::new("sleep");
        let mut worker = Worker::start(&children, "it", command.arg("600")).unwrap();
        let answer = worker.ask("time x", Duration::from_millis(10)).0;
        assert!(matches!(answer, Answer::Absent(why) if why.contains("time x")));
        assert!(!worker.is_alive());
    }
}
