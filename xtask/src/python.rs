//! Finding a Python 3 and its pip.

use std::env;
use std::fmt;
use std::process::{Command, Output};

use crate::error::{Error, Result};

/// A Python 3 that starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Python {
    pub(crate) program: String,
    pub(crate) version: String,
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.version)
    }
}

impl Python {
    /// `$PYTHON`, else `python3`, else `python`.
    pub(crate) fn find() -> Result<Self> {
        Self::find_among(&candidates(env::var("PYTHON").ok()))
    }

    fn find_among(candidates: &[String]) -> Result<Self> {
        let mut tried = Vec::new();
        for program in candidates {
            match version(program) {
                Ok(version) => return Ok(Self { program: program.clone(), version }),
                Err(why) => tried.push(format!("{program}: {why}")),
            }
        }
        Err(Error::NoPython { tried: tried.join(", ") })
    }

    /// The version of pip, as a proof that it works.
    pub(crate) fn pip_version(&self) -> Result<String> {
        let lacking = |reason| Error::NoPip { python: self.program.clone(), reason };
        let output = Command::new(&self.program)
            .args(["-m", "pip", "--version"])
            .output()
            .map_err(|error| lacking(error.to_string()))?;
        let words = String::from_utf8_lossy(&output.stdout);
        match words.split_whitespace().nth(1) {
            Some(version) if output.status.success() => Ok(version.to_owned()),
            _ => Err(lacking(last_line(&output))),
        }
    }
}

/// A `$PYTHON` that does not work is a mistake to be told of, not one to be worked around.
fn candidates(given: Option<String>) -> Vec<String> {
    match given.filter(|program| !program.is_empty()) {
        Some(program) => vec![program],
        None => vec!["python3".to_owned(), "python".to_owned()],
    }
}

fn version(program: &str) -> std::result::Result<String, String> {
    let output = Command::new(program)
        .args(["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "not found".to_owned(),
            _ => error.to_string(),
        })?;
    if !output.status.success() {
        return Err(last_line(&output));
    }
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version.starts_with("3.") { Ok(version) } else { Err(format!("is version `{version}`")) }
}

fn last_line(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Written by another process: while this one has a file open for writing, a child that
    /// another test starts at that moment has it open too, and then it cannot be run.
    fn script(dir: &Path, name: &str, body: &str) -> String {
        let path = dir.join(name).to_str().unwrap().to_owned();
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod +x "$0""#;
        let status = Command::new("sh").args(["-c", write, &path, body]).status().unwrap();
        assert!(status.success());
        path
    }

    #[test]
    fn the_first_python_3_that_starts_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let two = script(dir.path(), "two", "echo 2.7.18");
        let broken = script(dir.path(), "broken", "echo no such module >&2; exit 1");
        let three = script(dir.path(), "three", "echo 3.11.7");
        let absent = "/no/such/python".to_owned();

        let found = Python::find_among(&[absent.clone(), two.clone(), broken.clone(), three]);
        assert_eq!(found.unwrap().version, "3.11.7");

        let message = Python::find_among(&[absent, two, broken]).unwrap_err().to_string();
        assert!(message.contains("/no/such/python: not found"), "{message}");
        assert!(message.contains("is version `2.7.18`"), "{message}");
        assert!(message.contains("no such module"), "{message}");
    }

    #[test]
    fn a_given_python_is_the_only_candidate() {
        assert_eq!(candidates(Some("/opt/py".into())), ["/opt/py"]);
        assert_eq!(candidates(None), ["python3", "python"]);
        assert_eq!(candidates(Some(String::new())), ["python3", "python"]);
    }

    #[test]
    fn a_python_without_pip_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "python3", "echo 'No module named pip' >&2; exit 1");
        let error = Python { program, version: "3.9.0".to_owned() }.pip_version().unwrap_err();
        assert!(error.to_string().contains("No module named pip"), "{error}");
    }
}
