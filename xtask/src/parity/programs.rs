//! The programs that take part, and the lines of JSON that they speak.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::artifact::Artifact;
use crate::child::Children;
use crate::compiler::Compiler;
use crate::environment::{Environment, Threads};
use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// `gateloop-parity`, `gateloop` and the scripts.
#[derive(Debug)]
pub(super) struct Programs {
    parity: PathBuf,
    gateloop: PathBuf,
    scripts: PathBuf,
}

impl Programs {
    /// Builds ours.
    pub(super) fn build(
        workspace: &Workspace,
        children: &Children,
        compiler: &Compiler,
    ) -> Result<Self> {
        let mut cargo = workspace.cargo();
        compiler.pass_to(&mut cargo);
        cargo
            .args(["build", "--release", "-p", "gateloop-parity", "-p", "gateloop-transformer"])
            .args(["--bins", "--message-format=json-render-diagnostics"])
            .stdin(Stdio::null());
        let (mut parity, mut gateloop) = (None, None);
        children.run_lines("cargo build", &mut cargo, |line| match Artifact::from_line(line) {
            Some(program) if program.name == "gateloop-parity" => parity = Some(program.path),
            Some(program) if program.name == "gateloop" => gateloop = Some(program.path),
            _ => {}
        })?;
        let scripts = scripts(workspace);
        match (parity, gateloop) {
            (Some(parity), Some(gateloop)) => Ok(Self { parity, gateloop, scripts }),
            _ => Err(Error::BadAnswer {
                what: "cargo build",
                reason: "it does not name the programs".to_owned(),
            }),
        }
    }

    /// Lets the references write cases; returns their versions.
    pub(super) fn write_cases(
        &self,
        children: &Children,
        python: &Environment,
        folder: &Path,
        arguments: &[&str],
    ) -> Result<Value> {
        write_cases(children, python, &self.scripts, folder, arguments)
    }

    /// Runs the cases; the weights go to `back`.
    pub(super) fn run_cases(
        &self,
        children: &Children,
        folder: &Path,
        back: &Path,
        each: impl FnMut(Value),
    ) -> Result<()> {
        let mut command = self.ours();
        command.arg("cases").arg(folder).arg("--back").arg(back);
        lines(children, "gateloop-parity cases", &mut command, each)
    }

    /// Lets the references load the weights that came back. What does not fit is in the lines.
    pub(super) fn verify(
        &self,
        children: &Children,
        python: &Environment,
        folder: &Path,
        each: impl FnMut(Value),
    ) -> Result<()> {
        let mut command = python.command(Threads::One);
        command.arg(self.scripts.join("verify.py")).arg(folder);
        match lines(children, "verify.py", &mut command, each) {
            Err(Error::Child { code: 1, .. }) => Ok(()),
            done => done,
        }
    }

    /// Lets the reference train.
    pub(super) fn write_trajectories(
        &self,
        children: &Children,
        python: &Environment,
        enwik8: &Path,
        folder: &Path,
    ) -> Result<()> {
        let mut command = python.command(Threads::One);
        command.arg(self.scripts.join("trajectories.py"));
        command.arg("--enwik8").arg(enwik8).arg("--out").arg(folder);
        progress(children, "the reference trains", "trajectories.py", &mut command, |_| {})
    }

    /// Trains the same.
    pub(super) fn run_trajectories(
        &self,
        children: &Children,
        folder: &Path,
        plot: &Path,
        each: impl FnMut(Value),
    ) -> Result<()> {
        let mut command = self.ours();
        command.arg("trajectories").arg(folder).arg("--plot").arg(plot);
        lines(children, "gateloop-parity trajectories", &mut command, each)
    }

    /// Where enwik8 is; fetches it if need be.
    pub(super) fn fetch_enwik8(&self, children: &Children) -> Result<PathBuf> {
        let mut path = None;
        let mut command = Command::new(&self.gateloop);
        command.args(["data", "fetch", "enwik8"]);
        children.run_lines("gateloop data fetch", &mut command, |line| {
            path = Some(PathBuf::from(line.trim()));
        })?;
        path.ok_or_else(|| Error::BadAnswer {
            what: "gateloop data fetch",
            reason: "it printed no path".to_owned(),
        })
    }

    fn ours(&self) -> Command {
        let mut command = Command::new(&self.parity);
        // As many threads as the references have.
        command.env("OMP_NUM_THREADS", "1").env("MKL_NUM_THREADS", "1").stdin(Stdio::null());
        command
    }
}

pub(super) fn scripts(workspace: &Workspace) -> PathBuf {
    workspace.root().join("xtask/parity")
}

/// Lets the references write cases; returns their versions.
pub(super) fn write_cases(
    children: &Children,
    python: &Environment,
    scripts: &Path,
    folder: &Path,
    arguments: &[&str],
) -> Result<Value> {
    fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    let mut command = python.command(Threads::One);
    command.arg(scripts.join("cases.py")).arg("--out").arg(folder).args(arguments);
    let mut versions = Value::Null;
    progress(children, "the references write cases", "cases.py", &mut command, |line| {
        if let Some(found) = line.get("versions") {
            versions = found.clone();
        }
    })?;
    Ok(versions)
}

/// Runs a script whose lines say how far it is.
fn progress(
    children: &Children,
    title: &str,
    what: &str,
    command: &mut Command,
    mut each: impl FnMut(&Value),
) -> Result<()> {
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {wide_msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_prefix(title.to_owned());
    let done = lines(children, what, command, |line| {
        if let (Some(index), Some(total)) = (line["index"].as_u64(), line["total"].as_u64()) {
            bar.set_length(total);
            bar.set_position(index);
            let name = line["case"].as_str().or(line["trajectory"].as_str());
            bar.set_message(name.unwrap_or_default().to_owned());
        }
        each(&line);
    });
    bar.finish_and_clear();
    if done.is_ok() {
        eprintln!("{title}: {} done", bar.position());
    }
    done
}

/// Runs a program that prints a line of JSON for everything it has done.
fn lines(
    children: &Children,
    what: &str,
    command: &mut Command,
    mut each: impl FnMut(Value),
) -> Result<()> {
    children.run_lines(what, command, |line| match serde_json::from_str(line) {
        Ok(value) => each(value),
        // A warning of some library; it must not be lost.
        Err(_) => eprintln!("{line}"),
    })
}
