//! The workers of a run, each started when it is first needed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::plan::Who;
use super::rest::until_idle;
use super::worker::{Answer, Worker};
use crate::child::Children;
use crate::environment::{Environment, Threads};
use crate::error::Result;

/// How each worker is started.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) ours: PathBuf,
    pub(crate) base: Option<PathBuf>,
    /// The Python that has the peers, or why there is none.
    pub(crate) python: std::result::Result<Environment, String>,
    /// benches/peers/cpu/worker.py
    pub(crate) script: PathBuf,
}

impl Programs {
    fn command(&self, who: Who) -> std::result::Result<Command, String> {
        let peer = |name: &str| {
            let mut command = self.python.as_ref().map_err(Clone::clone)?.command(Threads::All);
            command.arg(&self.script).arg(name);
            // Warnings of the peers' libraries would tear the table apart.
            command.stderr(std::process::Stdio::null());
            Ok(command)
        };
        match who {
            Who::Ours => Ok(Command::new(&self.ours)),
            Who::Base => match &self.base {
                Some(program) => Ok(Command::new(program)),
                None => Err("no base revision was given".to_owned()),
            },
            Who::Jax => peer("jax"),
            Who::Torch => peer("torch"),
        }
    }
}

/// Processes by what they are.
#[derive(Debug)]
pub(crate) struct Workers<'a> {
    children: &'a Children,
    programs: &'a Programs,
    running: HashMap<Who, Worker<'a>>,
    limit: Duration,
}

impl<'a> Workers<'a> {
    /// `limit` is how long an answer may take.
    pub(crate) fn new(children: &'a Children, programs: &'a Programs, limit: Duration) -> Self {
        Self { children, programs, running: HashMap::new(), limit }
    }

    /// Asks a worker, starting it if need be. Errs only where a signal has come.
    pub(crate) fn ask(&mut self, who: Who, request: &str) -> Result<Answer> {
        Ok(self.ask_for_value(who, request)?.0)
    }

    /// The versions that the workers name, of those that are or can be started.
    pub(crate) fn versions(&mut self) -> Result<Vec<(String, String)>> {
        let mut versions = Vec::new();
        for who in [Who::Ours, Who::Jax, Who::Torch] {
            let (_, value) = self.ask_for_value(who, "versions")?;
            let found = value["versions"].as_object().into_iter().flatten();
            versions.extend(found.map(|(name, version)| {
                (name.clone(), version.as_str().unwrap_or_default().to_owned())
            }));
        }
        versions.dedup();
        Ok(versions)
    }

    /// Asks a process that exists for this one question.
    pub(crate) fn ask_alone(&self, who: Who, request: &str) -> Result<Answer> {
        let answer = match self.programs.command(who) {
            Ok(mut command) => {
                let mut worker = Worker::start(self.children, request, &mut command)?;
                worker.ask(request, self.limit).0
            }
            Err(why) => Answer::Absent(why),
        };
        self.children.check_interrupted(request)?;
        Ok(answer)
    }

    fn ask_for_value(&mut self, who: Who, request: &str) -> Result<(Answer, Value)> {
        if !self.running.contains_key(&who) {
            let mut command = match self.programs.command(who) {
                Ok(command) => command,
                Err(why) => return Ok((Answer::Absent(why), Value::Null)),
            };
            self.running.insert(who, Worker::start(self.children, request, &mut command)?);
        }
        let asked = self.running.get_mut(&who).map(|worker| worker.ask(request, self.limit));
        self.children.check_interrupted(request)?;
        if self.running.get(&who).is_some_and(|worker| !worker.is_alive()) {
            // The next question starts another.
            self.running.remove(&who);
        }
        Ok(asked.unwrap_or((Answer::Absent("it was not started".to_owned()), Value::Null)))
    }

    /// Waits until those that have answered have nothing more to do.
    pub(crate) fn rest(&self) {
        until_idle(&self.running.values().map(Worker::process).collect::<Vec<_>>());
    }

    /// Lets every worker forget what it has prepared.
    pub(crate) fn release(&mut self) -> Result<()> {
        for who in self.running.keys().copied().collect::<Vec<_>>() {
            self.ask(who, "release")?;
        }
        Ok(())
    }
}
