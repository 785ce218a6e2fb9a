//! What is prepared, by key.

use crate::answer;
use crate::error::{Problem, Result};
use crate::key::Key;
use crate::memory::{self, Peak};
use crate::work::Timed;
use serde_json::{Value, json};
use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct Session {
    prepared: HashMap<String, Timed>,
}

impl Session {
    /// Does what a line asks for.
    pub(crate) fn answer(&mut self, line: &str) -> Value {
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("prepare", key) => answer::done(self.prepare(key)),
            ("time", key) => answer::seconds(self.time(key)),
            ("memory", key) => answer::peak(peak(key)),
            ("release", "") => {
                self.prepared.clear();
                json!({})
            }
            ("versions", "") => versions(),
            _ => answer::done(Err(Problem::Request { request: line.to_owned() })),
        }
    }

    fn prepare(&mut self, key: &str) -> Result<()> {
        let work = Key::parse(key)?.checked()?;
        self.prepared.insert(key.to_owned(), Timed::new(work)?);
        Ok(())
    }

    fn time(&mut self, key: &str) -> Result<f64> {
        let prepared = self.prepared.get_mut(key);
        prepared.ok_or_else(|| Problem::NotPrepared { key: key.to_owned() })?.sample()
    }
}

fn peak(key: &str) -> Result<Peak> {
    let key = Key::parse(key)?;
    if key.is_growth() {
        memory::take_no_more_than_needed();
    }
    let mut work = key.unchecked()?;
    memory::peak_of(|| work.run())
}

fn versions() -> Value {
    json!({
        "versions": { "gateloop": env!("CARGO_PKG_VERSION"), "libtorch": "2.11.0" },
        "threads": rayon::current_num_threads(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_prepared_timed_and_released() {
        let mut session = Session::default();
        let key = "scan/forward/f32/2x5x3@ours";
        assert!(session.answer(&format!("time {key}"))["wrong"].is_string());
        assert_eq!(session.answer(&format!("prepare {key}")), json!({}));
        assert!(session.answer(&format!("time {key}"))["seconds"].is_number());
        assert_eq!(session.answer("release"), json!({}));
        assert!(session.answer(&format!("time {key}"))["wrong"].is_string());
    }

    #[test]
    fn what_is_not_a_request_is_named() {
        let answer = Session::default().answer("dance");
        assert!(answer["wrong"].as_str().is_some_and(|why| why.contains("`dance`")), "{answer}");
    }
}
