//! `cargo xtask train`: from a fresh clone to a trained model, its bpc and a sample.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifact::Artifact;
use crate::child::Children;
use crate::error::{Error, Result};
use crate::setup;
use crate::workspace::Workspace;
use clap::Args;

/// What `gateloop` trains on when enwik8 cannot be had.
const STAND_IN: &str = "data.source=\"synthetic:text\"";

/// Options of `cargo xtask train`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The run folder [default: runs/NAME-OF-THE-CONFIG, with -2, -3 ... if it is taken]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The config file [default: configs/quick.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Handed on to `gateloop train`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// The task.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let root = shown_from_here(workspace.root());
    let config = options.config.clone().unwrap_or_else(|| root.join("configs/quick.toml"));
    if let Err(source) = std::fs::metadata(&config) {
        return Err(Error::io("read the config file", &config, source));
    }
    let out = options.out.clone().unwrap_or_else(|| {
        let name = config.file_stem().unwrap_or("run".as_ref());
        first_free(&root.join("runs").join(name))
    });

    let ready = setup::ensure(workspace, setup::Options::default())?;
    let children = Children::new()?;
    let mut build = workspace.cargo();
    ready.compiler.pass_to(&mut build);
    let program = build_gateloop(&children, &mut build)?;
    let gateloop = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments);
        command
    };

    let mut train = gateloop(&["train"]);
    train.arg("--config").arg(&config).arg("--out").arg(&out);
    let mut info = gateloop(&["info", "--config"]);
    if wants_enwik8(&children, info.arg(&config), &options.args)? {
        heading("gateloop data fetch enwik8");
        match children.run("gateloop data fetch", &mut gateloop(&["data", "fetch", "enwik8"])) {
            Ok(()) => {}
            Err(Error::Child { .. }) => {
                let data = root.join("data");
                eprintln!(
                    "enwik8 cannot be had, so this run trains on synthetic text: its bpc says"
                );
                eprintln!(
                    "nothing about enwik8. For that, put enwik8.zip into the folder {}.",
                    data.display()
                );
                train.args(["--set", STAND_IN]);
            }
            Err(error) => return Err(error),
        }
    }

    heading(&format!("gateloop train --config {} --out {}", config.display(), out.display()));
    if let Err(error) = children.run("gateloop train", train.args(&options.args)) {
        if matches!(error, Error::Interrupted { .. }) && out.exists() {
            let resume = "cargo run --release --bin gateloop -- train --resume";
            eprintln!("to go on with this run: {resume} --out {}", out.display());
        }
        return Err(error);
    }
    heading("gateloop eval --split valid");
    let checkpoint = |command: &str| {
        let mut command = gateloop(&[command]);
        command.arg("--checkpoint").arg(&out);
        command
    };
    children.run("gateloop eval", checkpoint("eval").args(["--split", "valid"]))?;
    heading("gateloop generate");
    let generate = ["--prompt", "The ", "--tokens", "256"];
    children.run("gateloop generate", checkpoint("generate").args(generate))?;
    eprintln!("\nthe run is in {}", out.display());
    Ok(())
}

/// Whether the run is on enwik8: so says its configuration, and no argument says otherwise.
fn wants_enwik8(children: &Children, info: &mut Command, args: &[String]) -> Result<bool> {
    if args.iter().any(|arg| arg.contains("data.source")) {
        return Ok(false);
    }
    let mut wanted = false;
    children.run_lines("gateloop info", info, |line| {
        wanted |= line.trim() == "source = \"enwik8\"";
    })?;
    Ok(wanted)
}

fn heading(text: &str) {
    eprintln!("\n== {text}");
}

/// Builds with the compiler's messages visible and returns the path of the program, so that a
/// later edit of the sources does not start another build in the middle of a run.
fn build_gateloop(children: &Children, cargo: &mut Command) -> Result<PathBuf> {
    heading("cargo build --release --bin gateloop");
    cargo
        .args(["build", "--release", "-p", "gateloop-transformer", "--bin", "gateloop"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null());
    let mut program = None;
    children.run_lines("cargo build", cargo, |line| {
        let artifact = Artifact::from_line(line).filter(|artifact| artifact.name == "gateloop");
        program = artifact.map(|artifact| artifact.path).or(program.take());
    })?;
    program.ok_or_else(|| Error::BadAnswer {
        what: "cargo build",
        reason: "it does not name the program `gateloop`".to_owned(),
    })
}

/// The first of `dir`, `dir-2`, `dir-3` ... that does not exist.
fn first_free(dir: &Path) -> PathBuf {
    let numbered = |n: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    let mut candidates = std::iter::once(dir.to_path_buf()).chain((2..).map(numbered));
    candidates.find(|dir| !dir.exists()).unwrap_or_else(|| dir.to_path_buf())
}

/// Empty where the current folder is `root`, so that paths are printed as one would type them.
fn shown_from_here(root: &Path) -> PathBuf {
    if env::current_dir().is_ok_and(|here| here == root) {
        PathBuf::new()
    } else {
        root.to_path_buf()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_run_folder_is_chosen() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("quick");
        assert_eq!(first_free(&dir), dir);
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(first_free(&dir), root.path().join("quick-2"));
        std::fs::write(root.path().join("quick-2"), "").unwrap();
        assert_eq!(first_free(&dir), root.path().join("quick-3"));
    }
}
