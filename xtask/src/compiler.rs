//! Finding a C++17 compiler by compiling something with it.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

const PROGRAM: &str = "\
#include <optional>
#include <string>
int main() { std::optional<std::string> s; return s.has_value(); }
";

/// A compiler that turned a C++17 program into an executable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) program: String,
    pub(crate) version: String,
}

impl Compiler {
    /// `$CXX`, else the first that works of `c++`, `g++` and `clang++`.
    pub(crate) fn find() -> Result<Self> {
        Self::find_among(&candidates(env::var("CXX").ok()))
    }

    fn find_among(candidates: &[String]) -> Result<Self> {
        let mut tried = Vec::new();
        for program in candidates {
            match compiles(program) {
                Ok(()) => {
                    return Ok(Self { program: program.clone(), version: version(program) });
                }
                Err(why) => tried.push(format!("{program}: {why}")),
            }
        }
        Err(Error::NoCompiler { tried: tried.join(", ") })
    }

    /// The build scripts call `c++` unless told otherwise, so they are told.
    pub(crate) fn pass_to(&self, command: &mut Command) {
        if self.program != "c++" {
            command.env("CXX", &self.program);
        }
    }
}

/// A `$CXX` that does not work is a mistake to be told of, not one to be worked around.
fn candidates(given: Option<String>) -> Vec<String> {
    match given.filter(|program| !program.trim().is_empty()) {
        Some(program) => vec![program],
        None => ["c++", "g++", "clang++"].map(str::to_owned).to_vec(),
    }
}

/// `$CXX` may hold a wrapper and flags, as in `ccache g++`.
fn command(program: &str) -> Command {
    let mut words = program.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or(program));
    command.args(words).stdin(Stdio::null());
    command
}

fn compiles(program: &str) -> std::result::Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let source = dir.path().join("check.cpp");
    fs::write(&source, PROGRAM).map_err(|error| error.to_string())?;
    let output = command(program)
        .arg("-std=c++17")
        .arg(&source)
        .arg("-o")
        .arg(dir.path().join("check"))
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "not found".to_owned(),
            _ => error.to_string(),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let line = words.lines().find(|line| line.contains("error")).or_else(|| words.lines().next());
    Err(format!("cannot compile C++17: {}", line.unwrap_or("no message").trim()))
}

fn version(program: &str) -> String {
    let output = command(program).arg("--version").output();
    let words = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    words.ok().and_then(|words| words.lines().next().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_named() {
        let absent = "/no/such/compiler".to_owned();
        let message = Compiler::find_among(&[absent, "false".into()]).unwrap_err().to_string();
        assert!(message.contains("/no/such/compiler: not found"), "{message}");
        assert!(message.contains("false: cannot compile C++17"), "{message}");
    }

    #[test]
    fn a_given_compiler_is_the_only_candidate() {
        assert_eq!(candidates(Some("ccache g++".into())), ["ccache g++"]);
        assert_eq!(candidates(Some(" ".into())), ["c++", "g++", "clang++"]);
    }
}
