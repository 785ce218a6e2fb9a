//! The program: what it prints, what it refuses, and with which exit code.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod generate;
#[path = "../common/small_run.rs"]
mod small_run;

use assert_cmd::Command;
use common::TestResult;
use gateloop_transformer::weights::{self, Metadata, Tensors, WeightFile};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use small_run::CONFIG;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

fn gateloop(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gateloop"));
    // Tests run beside each other; threads that spin for work would only get in the others' way.
    command.args(args).env("OMP_NUM_THREADS", "1");
    command
}

/// A folder with `config.toml` and a finished run in `run`, made once for all tests.
fn workspace() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
            gateloop(&["train", "--config", "config.toml", "--out", "run"])
                .current_dir(folder.path())
                .assert()
                .success()
                .stdout(contains("valid/bpc"))
                .stderr(contains("step 6/6"));
            folder
        })
        .path()
}

fn run_folder() -> String {
    workspace().join("run").display().to_string()
}

fn checkpoint() -> PathBuf {
    workspace().join("run/checkpoints/step-00000006.safetensors")
}

/// Wrong usage: exit code 2, and a message that says all of `parts`.
fn refused(args: &[&str], parts: &[&str]) {
    let assert = gateloop(args).current_dir(workspace()).assert().code(2).stdout(is_empty());
    let message = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    for part in parts {
        assert!(message.contains(part), "{args:?} said {message:?} without {part:?}");
    }
    assert!(!message.contains("panic"), "{message}");
}

/// Failed while running: exit code 1, and a message that says all of `parts`.
fn failed(args: &[&str], parts: &[&str]) {
    let assert = gateloop(args).current_dir(workspace()).assert().code(1).stdout(is_empty());
    let message = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    for part in parts {
        assert!(message.contains(part), "{args:?} said {message:?} without {part:?}");
    }
    assert!(!message.contains("panic"), "{message}");
}

#[test]
fn help_explains_every_command() {
    for command in ["train", "generate", "eval", "info", "plot", "runs", "data", "logits"] {
        gateloop(&["--help"]).assert().success().stdout(contains(command));
        gateloop(&[command, "--help"]).assert().success().stdout(contains("Usage"));
    }
    gateloop(&["--version"]).assert().success().stdout(contains(env!("CARGO_PKG_VERSION")));
    gateloop(&[]).assert().code(2);
    refused(&["trian"], &["train"]);
}

#[test]
fn a_whole_split_is_evaluated_in_windows_or_with_the_state() {
    let (run, folder) = (run_folder(), tempfile::tempdir().unwrap());
    let picture = folder.path().join("positions.svg").display().to_string();
    let head = ["eval", "--checkpoint", &run, "--whole"];
    let eval = |more: &[&str]| {
        let assert = gateloop(&head).args(more).assert().success().stderr(is_empty());
        let line = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[2]), ("valid/bpc", "+-"), "{line}");
        assert!(line.contains("3999 bytes"), "{line}");
        [words[1], words[3]].map(|number| number.parse::<f64>().unwrap())
    };
    let [windows, error] = eval(&["--positions", &picture]);
    assert!(error > 0.0 && error < 1.0);
    assert!(fs::read_to_string(&picture).unwrap().contains("bytes of context"));
    // One window over everything is the state carried.
    let [carried, _] = eval(&["--carry"]);
    let [single, error] = eval(&["--seq-len", "4000"]);
    assert!((carried - single).abs() < 2e-4 && error.is_nan(), "{carried} {single}");
    let [strided, _] = eval(&["--stride", "16"]);
    assert!([windows, strided].iter().all(|bpc| (bpc - carried).abs() < 0.5));
    refused(&[&head[..], &["--positions", "positions.gif"]].concat(), &["positions.gif", ".png"]);
    refused(&[&head[..], &["--stride", "64"]].concat(), &["--stride 64", "--seq-len 32"]);
}

#[test]
fn a_task_is_evaluated_by_its_answers() {
    let run = run_folder();
    let set = ["--set", "data.source=synthetic:recall?pairs=4"];
    let eval = |more: &[&str]| -> [f64; 5] {
        let arguments = [&["eval", "--checkpoint", &run][..], &set, more].concat();
        let assert = gateloop(&arguments).assert().success().stderr(is_empty());
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        let [bpc, accuracy] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(bpc.starts_with("valid/bpc"), "{bpc}");
        let words: Vec<&str> = accuracy.split([' ', '(', ',']).filter(|w| !w.is_empty()).collect();
        assert_eq!(
            [words[0], words[3], words[5]],
            ["valid/accuracy", "of", "answer"],
            "{accuracy}"
        );
        [1, 2, 4, 10, 12].map(|word| words[word].parse().unwrap())
    };
    let [share, right, of, right_lines, lines] = eval(&["--whole", "--carry"]);
    assert!((share - right / of).abs() < 1e-4 && right <= of && right_lines <= lines);
    // Lines of four keys, then their values one by one.
    assert!((of / 4.0 - lines).abs() <= 1.0 && lines > 200.0, "{of} {lines}");
    let [.., cut, _, _] = eval(&["--whole"]);
    assert!(0.0 < cut && cut < of, "windows cut lines: {cut} of {of}");
    let [.., of, _, _] = eval(&["--windows", "8", "--seq-len", "40"]);
    assert!(of > 0.0 && of < 8.0 * 20.0);
    let answers = ["--set", "train.loss_on=answers"];
    gateloop(&[&["eval", "--checkpoint", &run, "--seq-len", "40"][..], &set, &answers].concat())
        .assert()
        .success()
        .stdout(contains("answers alone"));
    refused(&[&["eval", "--checkpoint", &run][..], &answers].concat(), &["train.loss_on"]);
}

#[test]
fn runs_are_listed_and_drawn_together() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("both.svg").display().to_string();
    let run = run_folder();
    let metrics = format!("{run}/metrics.jsonl");
    for by in ["step", "tokens", "time"] {
        gateloop(&["plot", &run, &metrics, "--out", &picture, "--by", by])
            .assert()
            .success()
            .stdout(contains("both.svg"));
        let svg = fs::read_to_string(&picture).unwrap();
        let axis = if by == "time" { "seconds" } else { by };
        assert!(svg.contains(axis) && svg.contains("run training"), "{svg}");
    }
    let pixels = folder.path().join("both.png");
    gateloop(&["plot", &run, "-o", &pixels.display().to_string()]).assert().success();
    // Records of another program are enough.
    let records = folder.path().join("records");
    fs::create_dir(&records).unwrap();
    fs::copy(&metrics, records.join("metrics.jsonl")).unwrap();
    let records = records.display().to_string();
    gateloop(&["plot", &run, &records, "-o", &picture]).assert().success();
    assert!(fs::read(&pixels).unwrap().starts_with(b"\x89PNG"));
    let gates = folder.path().join("gates.svg").display().to_string();
    gateloop(&["plot", "--gates", &run, "-o", &gates]).assert().success().stdout(contains(&gates));
    assert!(fs::read_to_string(&gates).unwrap().contains("layers.1.mixer"));
    refused(&["plot", "--gates", &run, &metrics, "-o", &gates], &["--gates", "2 are given"]);
    refused(&["plot", &run, "-o", "loss.pdf"], &["loss.pdf", ".svg", ".png"]);
    let parent = workspace().display().to_string();
    let listed = gateloop(&["runs", &parent, &run]).assert().success();
    let listed = String::from_utf8_lossy(&listed.get_output().stdout).into_owned();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(cells[..3], [run.as_str(), "6", "6"], "{listed}");
    assert!(cells[3].parse::<f64>().unwrap() > 1.0);
    let empty = folder.path().display().to_string();
    failed(&["runs", &empty], &[&empty, "no run"]);
    failed(&["plot", &format!("{empty}/none.jsonl")], &["none.jsonl"]);
    failed(&["plot", &empty], &["metrics.jsonl"]);
}

#[test]
fn a_view_without_a_terminal_is_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    refused(&["train", "--tui", "--out", &out.display().to_string()], &["--tui", "terminal"]);
    assert!(!out.exists());
}

#[test]
fn eval_and_info_describe_a_checkpoint() {
    let run = run_folder();
    gateloop(&["eval", "--checkpoint", &run])
        .assert()
        .success()
        .stdout(contains("valid/bpc").and(contains("4 windows of 32 tokens")));
    gateloop(&["eval", "--checkpoint", &run, "--split", "test", "--windows", "2"])
        .args(["--seq-len", "64"])
        .assert()
        .success()
        .stdout(contains("test/bpc").and(contains("2 windows of 64 tokens")));
    let kinds = ["--weights", "f32", "--weights", "bf16", "--weights", "int8"];
    gateloop(&[&["eval", "--checkpoint", &run, "--windows", "2"], &kinds[..]].concat())
        .current_dir(workspace())
        .assert()
        .success()
        .stdout(
            contains("weights f32").and(contains("weights bf16")).and(contains("weights int8")),
        );
    refused(&["eval", "--checkpoint", &run, "--split", "dev"], &["dev", "train, valid"]);
    gateloop(&["info", "--checkpoint", &run]).assert().success().stdout(
        contains("dim = 16").and(contains("feed-forwards")).and(contains("decoding state: 64")),
    );
    gateloop(&["info", "--config", "config.toml"])
        .current_dir(workspace())
        .assert()
        .success()
        .stdout(contains("total"));
    refused(&["info"], &["--checkpoint"]);
}

#[test]
fn configurations_that_cannot_be_are_refused_by_key() {
    let set = |value: &'static str, parts: &[&str]| {
        refused(&["train", "--config", "config.toml", "--out", "new", "--set", value], parts);
        assert!(!workspace().join("new").exists(), "nothing is left behind by {value}");
    };
    set("train.stepps=5", &["train.stepps", "train.steps"]);
    set("train.steps=0", &["train.steps"]);
    set("train.seq_len=0", &["train.seq_len"]);
    set("model.gate_loop_heads=3", &["3", "16"]);
    set("train.lr", &["train.lr", "key=value"]);
    set("data.source=synthetic:txt", &["txt", "text"]);
    refused(&["train", "--config", "nowhere.toml"], &["nowhere.toml"]);
    refused(&["train", "--resume"], &["--out"]);
    refused(&["train", "--out", "nothing-here", "--resume"], &["nothing-here", "no run"]);
}

#[test]
fn data_that_is_too_short_is_named() -> TestResult {
    fs::write(workspace().join("short"), b"too short")?;
    failed(
        &["train", "--out", "new", "--set", "data.source=short", "--set", "train.seq_len=32"],
        &["train split has 9 tokens", "33"],
    );
    failed(
        &["train", "--config", "config.toml", "--out", "new", "--set", "data.source=short"],
        &["data.train_bytes", "20000", "9 bytes"],
    );
    failed(
        &["train", "--config", "config.toml", "--out", "new", "--set", "data.source=absent.txt"],
        &["absent.txt"],
    );
    assert!(!workspace().join("new").exists());
    Ok(())
}

#[test]
fn an_existing_folder_is_refused_and_a_run_goes_on() -> TestResult {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("config.toml"), CONFIG)?;
    let train = |rest: &[&str]| {
        let mut command = gateloop(&["train", "--out", "run"]);
        command.args(rest).current_dir(folder.path());
        command
    };
    train(&["--config", "config.toml"]).assert().success();
    train(&["--config", "config.toml"])
        .assert()
        .code(2)
        .stderr(contains("--resume").and(contains("--overwrite")));
    train(&["--resume", "--set", "train.steps=8"])
        .assert()
        .success()
        .stderr(contains("resumed at step 6").and(contains("step 8/8")));
    train(&["--config", "config.toml", "--overwrite"]).assert().success();

    // A checkpoint of another configuration: the first parameter that differs, both shapes.
    train(&["--resume", "--set", "model.dim=32"])
        .assert()
        .code(1)
        .stderr(contains("layers.0.0.fn.to_a.0.bias").and(contains("[32]")).and(contains("[64]")));
    Ok(())
}

#[test]
fn checkpoints_that_cannot_be_read_are_named() -> TestResult {
    let whole = fs::read(checkpoint())?;
    for (name, bytes) in [
        ("empty.safetensors", &[][..]),
        ("cut.safetensors", &whole[..whole.len() - 100]),
        ("text.safetensors", b"this is not a weight file at all"),
    ] {
        fs::write(workspace().join(name), bytes)?;
        failed(&["generate", "--checkpoint", name, "--prompt", "a"], &[name, "safetensors"]);
    }
    failed(&["eval", "--checkpoint", "absent"], &["absent"]);
    failed(&["info", "--checkpoint", "."], &["checkpoints"]);
    Ok(())
}

#[test]
fn logits_follow_the_weights_and_ids_given() -> TestResult {
    let run = checkpoint();
    let model = gateloop_transformer::checkpoint::open(&run)?.checkpoint.model(Device::Cpu)?;
    let ids = Tensor::arange(18, (Kind::Int64, Device::Cpu)).view([2, 9]);
    let path = |name: &str| workspace().join(name);
    weights::write(&path("w.safetensors"), &model.parameters(), Metadata::new())?;
    let one = |name: &str, tensor: &Tensor| Tensors::from([(name.into(), tensor.shallow_clone())]);
    weights::write(&path("i.safetensors"), &one("ids", &ids), Metadata::new())?;
    let args = |weights: &'static str, ids: &'static str| {
        ["logits", "--config", "config.toml", "--weights", weights, "--ids", ids]
            .into_iter()
            .chain(["--out", "o.safetensors"])
            .collect::<Vec<_>>()
    };
    gateloop(&args("w.safetensors", "i.safetensors")).current_dir(workspace()).assert().success();
    let logits = WeightFile::open(&path("o.safetensors"))?.tensors(|name| Some(name.into()))?;
    let expected = tch::no_grad(|| model.forward(&ids))?;
    assert_eq!(common::values(&logits["logits"]), common::values(&expected));

    weights::write(&path("far.safetensors"), &one("ids", &(&ids + 256)), Metadata::new())?;
    failed(&args("w.safetensors", "far.safetensors"), &["token id", "0..256"]);
    weights::write(&path("named.safetensors"), &one("tokens", &ids), Metadata::new())?;
    failed(&args("w.safetensors", "named.safetensors"), &["`ids`"]);
    let mut fewer = model.parameters();
    let _ = fewer.remove("to_logits.0.gamma");
    weights::write(&path("fewer.safetensors"), &fewer, Metadata::new())?;
    failed(&args("fewer.safetensors", "i.safetensors"), &["missing: `to_logits.0.gamma`"]);
    Ok(())
}

#[cfg(unix)]
#[test]
fn an_interruption_writes_a_checkpoint_and_says_how_to_go_on() -> TestResult {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("config.toml"), CONFIG)?;
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("gateloop"))
        .args(["train", "--config", "config.toml", "--out", "run"])
        .args(["--set", "train.steps=1000000", "--set", "train.checkpoint_every=0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    let mut lines = BufReader::new(stderr).lines();
    // The first record says that training is under way and the handler in place.
    assert!(lines.by_ref().any(|line| line.is_ok_and(|line| line.starts_with("step 2/"))));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    lines.for_each(drop);
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("go on with: gateloop train --out run --resume"), "{stdout}");
    assert_eq!(fs::read_dir(folder.path().join("run/checkpoints"))?.count(), 1);
    Ok(())
}
