//! `cargo xtask test`: every check of the project, cheapest first.

mod examples;
mod tally;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;

use self::tally::Tally;
use crate::child::Children;
use crate::doctor;
use crate::error::Result;
use crate::setup::{self, Ready};
use crate::workspace::Workspace;

const SCAN: &str = "gateloop-scan";

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out the benches, the doc tests, the documentation and the examples
    #[arg(long)]
    quick: bool,
    /// Handed on to the test programs, for instance a part of a test's name; the benches, which
    /// take other arguments, are then left out
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// The task.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let ready = setup::ensure(workspace, setup::Options::default())?;
    if let Some(warning) = doctor::warning_of_room(workspace) {
        println!("{warning}");
    }
    let mut run = Run {
        workspace,
        ready,
        children: Children::new()?,
        // Shown in full where the caller asks libtest for something.
        tally: Tally::new(options.args.is_empty()),
    };
    let start = Instant::now();
    let result = run.steps(options);
    println!();
    if let Err(error) = &result {
        println!("FAILED: {error}");
    }
    println!("total {:.0} s", start.elapsed().as_secs_f64());
    println!("{}", run.tally);
    result
}

struct Run<'a> {
    workspace: &'a Workspace,
    ready: Ready,
    children: Children,
    tally: Tally,
}

impl Run<'_> {
    fn steps(&mut self, options: &Options) -> Result<()> {
        // One set of features in every step after the scan's, so that nothing is built twice.
        let all = ["--workspace", "--all-features"];
        let rest = ["--workspace", "--exclude", SCAN, "--all-features"];
        self.step(&["fmt", "--all", "--check"])?;
        self.step(&[&["clippy"], &all[..], &["--all-targets", "--", "-D", "warnings"]].concat())?;
        self.scan_alone(&options.args)?;

        let most = ["--lib", "--bins", "--tests", "--examples"];
        let complete = !options.quick && options.args.is_empty();
        let targets: &[&str] = if complete { &["--all-targets"] } else { &most };
        self.tests(&[&["test"], &rest[..], targets].concat(), &options.args)?;
        if options.quick {
            return Ok(());
        }
        self.tests(&[&["test"], &rest[..], &["--doc"]].concat(), &options.args)?;
        self.documentation(&all)?;
        self.examples()
    }

    /// The scan promises to build and pass its tests, with all features, on a machine without
    /// libtorch and CUDA.
    fn scan_alone(&mut self, args: &[String]) -> Result<()> {
        let mut cargo = self.cargo(&["test", "-p", SCAN, "--all-features", "--no-fail-fast"]);
        cargo.env("LIBTORCH", self.nowhere());
        let what = "cargo test -p gateloop-scan --all-features (without libtorch)";
        self.test_step(what, cargo, args)
    }

    fn nowhere(&self) -> PathBuf {
        self.workspace.root().join("no-such-libtorch")
    }

    fn tests(&mut self, arguments: &[&str], args: &[String]) -> Result<()> {
        let mut cargo = self.cargo(arguments);
        // One failure must not hide another.
        cargo.arg("--no-fail-fast");
        self.test_step(&format!("cargo {}", arguments.join(" ")), cargo, args)
    }

    fn documentation(&mut self, all: &[&str]) -> Result<()> {
        let arguments = [&["doc"], all, &["--no-deps"]].concat();
        let mut cargo = self.cargo(&arguments);
        cargo.env("RUSTDOCFLAGS", "-D warnings");
        self.timed(&format!("cargo {}", arguments.join(" ")), |run, what| {
            run.children.run(what, &mut cargo)
        })
    }

    fn examples(&mut self) -> Result<()> {
        for example in examples::find(self.workspace)? {
            let arguments = ["run", "--all-features", "-p", &example.package];
            let arguments = [&arguments[..], &["--example", &example.name]].concat();
            self.step(&arguments)?;
        }
        Ok(())
    }

    /// Runs a command that has no tests to count.
    fn step(&mut self, arguments: &[&str]) -> Result<()> {
        let mut cargo = self.cargo(arguments);
        self.timed(&format!("cargo {}", arguments.join(" ")), |run, what| {
            run.children.run(what, &mut cargo)
        })
    }

    /// Runs tests, prints what they print and counts them.
    fn test_step(&mut self, what: &str, mut cargo: Command, args: &[String]) -> Result<()> {
        cargo.arg("--");
        if args.is_empty() {
            // The only way to see why a test that passed could not do its work.
            cargo.arg("--show-output");
        }
        cargo.args(args);
        self.timed(what, |run, what| {
            let tally = &mut run.tally;
            run.children.run_lines(what, &mut cargo, |line| {
                if let Some(line) = tally.line(line) {
                    println!("{line}");
                }
            })
        })
    }

    fn timed(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut Self, &str) -> Result<()>,
    ) -> Result<()> {
        println!("\n== {what}");
        let start = Instant::now();
        let result = step(self, what);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("== {verdict} in {:.1} s: {what}", start.elapsed().as_secs_f64());
        result
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = self.workspace.cargo();
        cargo.args(arguments).stdin(Stdio::null());
        self.ready.compiler.pass_to(&mut cargo);
        cargo
    }
}
