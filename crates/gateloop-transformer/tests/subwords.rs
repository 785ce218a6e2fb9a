//! Runs on the subwords of a tokenizer, from training to text.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/small_run.rs"]
mod small_run;
#[path = "common/stop_at.rs"]
mod stop_at;
#[path = "common/tokenizer.rs"]
mod tokenizer;

use assert_cmd::Command;
use common::{TestResult, values};
use gateloop_transformer::checkpoint::{self, CheckpointError, CheckpointFolder};
use gateloop_transformer::config::Config;
use gateloop_transformer::data::{Corpus, DataError, Split};
use gateloop_transformer::metrics;
use gateloop_transformer::train::{ChangedData, ExistingFolder, Interrupt, Quiet, Run, TrainError};
use gateloop_transformer::vocabulary::VocabularyError;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use std::f64::consts::LN_2;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use stop_at::StopAt;
use tch::{Device, Tensor};

/// A folder with two tokenizers, `a.json` and `b.json`, and a finished run in `run`.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let text = text();
        for (name, size) in [("a.json", 320), ("b.json", 300)] {
            fs::write(folder.path().join(name), tokenizer::byte_level(&text, size)).unwrap();
        }
        let config = config(&folder.path().join("a.json"), &[]);
        train(&folder.path().join("run"), &config).unwrap();
        folder
    });
    made.path()
}

/// The training split of the small run.
fn text() -> String {
    let config = Config::from_toml_str(small_run::CONFIG, "small run", &[]).unwrap();
    let corpus = Corpus::open(&config.data).unwrap();
    String::from_utf8(corpus.split(Split::Train).to_vec()).unwrap()
}

fn config(tokenizer: &Path, overrides: &[&str]) -> Config {
    // Tests run beside each other; threads that spin for work would only get in the others' way.
    tch::set_num_threads(1);
    let own = [
        format!("data.tokenizer={}", tokenizer.display()),
        "model.num_tokens=320".to_owned(),
        "train.steps=60".to_owned(),
        "train.lr=1e-2".to_owned(),
        "train.validate_every=30".to_owned(),
        "train.checkpoint_every=30".to_owned(),
        "train.sample_every=60".to_owned(),
        "generate.tokens=40".to_owned(),
    ];
    let overrides: Vec<String> =
        own.into_iter().chain(overrides.iter().map(ToString::to_string)).collect();
    Config::from_toml_str(small_run::CONFIG, "small run", &overrides).unwrap()
}

fn train(path: &Path, config: &Config) -> Result<(), TrainError> {
    Run::start(path, config, ExistingFolder::Keep)?.train(&mut Quiet, &Interrupt::default())?;
    Ok(())
}

fn weights(run: &Path) -> Vec<Vec<f64>> {
    let file = CheckpointFolder::of_run(run).file(60);
    let model = checkpoint::open(&file).unwrap().checkpoint.model(Device::Cpu).unwrap();
    model.parameters().values().map(values).collect()
}

#[test]
fn bits_are_those_of_a_byte() -> TestResult {
    let folder = folder();
    let config = config(&folder.join("a.json"), &[]);
    let corpus = Corpus::open(&config.data)?;
    let [train, valid] = [Split::Train, Split::Valid].map(|s| corpus.tokens(s).bytes_per_token());
    assert!(train > 1.5 && valid > 1.5);
    let records = metrics::read(folder.join("run/metrics.jsonl"))?;
    let last = &records.last().unwrap().values;
    assert!((last["train/loss"] / LN_2 / train - last["train/bpc"]).abs() < 1e-9);
    assert!((last["valid/loss"] / LN_2 / valid - last["valid/bpc"]).abs() < 1e-9);
    // Less than ln 320, and more than nothing.
    assert!((1.0..5.7).contains(&last["valid/loss"]), "{}", last["valid/loss"]);

    // Over all of a split it is what all of its tokens cost, divided by its bytes.
    let model = checkpoint::open(&folder.join("run"))?.checkpoint.model(Device::Cpu)?;
    let tokens = corpus.tokens(Split::Valid);
    let mut ids = Vec::new();
    tokens.copy_to(0, tokens.len(), &mut ids);
    let whole = Tensor::from_slice(&ids).unsqueeze(0);
    let nats = tch::no_grad(|| model.loss(&whole))?.double_value(&[]);
    let bpc = nats * tokens.len() as f64 / LN_2 / corpus.split(Split::Valid).len() as f64;
    let run = folder.join("run").display().to_string();
    let picture = tempfile::tempdir()?;
    let picture = picture.path().join("positions.svg").display().to_string();
    let eval = |more: &[&str]| -> (f64, String) {
        let assert = gateloop(&["eval", "--checkpoint", &run]).args(more).assert().success();
        let line = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        (line.split_whitespace().nth(1).unwrap().parse().unwrap(), line)
    };
    let (carried, line) = eval(&["--whole", "--carry"]);
    assert!((carried - bpc).abs() < 2e-4, "{carried} {bpc}");
    assert!(line.contains(&format!("{} tokens of {valid:.3} bytes", ids.len() - 1)), "{line}");
    eval(&["--whole", "--positions", &picture]);
    assert!(fs::read_to_string(&picture)?.contains("tokens of context"));
    let (windows, line) = eval(&[]);
    assert!((windows - last["valid/bpc"]).abs() < 1e-4 && line.contains("32 tokens of"), "{line}");
    Ok(())
}

#[test]
fn samples_are_text() {
    let sample = fs::read_to_string(folder().join("run/samples/step-00000060.txt")).unwrap();
    let config = config(&folder().join("a.json"), &[]);
    let corpus = Corpus::open(&config.data).unwrap();
    let valid = std::str::from_utf8(corpus.split(Split::Valid)).unwrap();
    // 128 tokens of the prompt, which are more than 128 bytes, and 40 of the model.
    assert_eq!(sample.as_bytes()[..150], valid.as_bytes()[..150]);
}

#[test]
fn a_run_goes_on_with_its_own_tokenizer_and_no_other() -> TestResult {
    let (folder, own) = (folder(), tempfile::tempdir()?);
    let file = own.path().join("tokenizer.json");
    fs::copy(folder.join("a.json"), &file)?;
    let run = own.path().join("run");
    let config_of = |tokenizer: &Path| config(tokenizer, &[]);
    let interrupt = Interrupt::default();
    Run::start(&run, &config_of(&file), ExistingFolder::Keep)?
        .train(&mut StopAt(2, interrupt.clone()), &interrupt)?;
    let resume = |config: &Config| Run::resume(&run, config, ChangedData::Refuse, &mut Quiet);
    let bytes = Config { data: Config::default().data, ..config_of(&file) };
    for config in [config_of(&folder.join("b.json")), bytes] {
        let error = resume(&config).unwrap_err();
        let is_foreign =
            matches!(error, TrainError::Checkpoint(CheckpointError::ForeignTokenizer { .. }));
        assert!(is_foreign && error.to_string().contains("data.tokenizer"), "{error}");
    }
    // The file may be gone: the checkpoint has it.
    fs::remove_file(&file)?;
    resume(&config_of(&file))?.train(&mut Quiet, &Interrupt::default())?;
    assert_eq!(weights(&run), weights(&folder.join("run")));
    // A new run needs it.
    let error = train(&own.path().join("new"), &config_of(&file)).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("data.tokenizer"), "{error}");
    assert!(!own.path().join("new").exists());
    Ok(())
}

#[test]
fn a_model_of_too_few_tokens_is_refused() {
    let (folder, own) = (folder(), tempfile::tempdir().unwrap());
    let config = config(&folder.join("a.json"), &["model.num_tokens=319"]);
    let error = train(&own.path().join("run"), &config).unwrap_err();
    let is_too_small = matches!(
        error,
        TrainError::Data(DataError::Vocabulary(VocabularyError::TooSmall {
            num_tokens: 319,
            tokens: 320
        }))
    );
    assert!(is_too_small, "{error}");
    assert!(!own.path().join("run").exists());
}

fn gateloop(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gateloop"));
    command.args(args).env("OMP_NUM_THREADS", "1");
    command
}

fn run_of(name: &str) -> String {
    folder().join(name).display().to_string()
}

fn output(args: &[&str], more: &[&str]) -> Vec<u8> {
    gateloop(args).args(more).assert().success().get_output().stdout.clone()
}

#[test]
fn text_is_written_in_subwords() -> TestResult {
    let (run, own) = (run_of("run"), tempfile::tempdir()?);
    let head = ["generate", "--checkpoint", &run, "--temperature", "0", "--prompt", "The cat "];
    let whole = output(&head, &["--tokens", "40", "--raw"]);
    // The same bytes however they are asked for.
    let vocabulary = checkpoint::open(Path::new(&run))?.checkpoint.vocabulary()?;
    assert_eq!(vocabulary.num_tokens(), 320);
    let shown = String::from_utf8(output(&head, &["--tokens", "40"]))?;
    let one = output(&head, &["--tokens", "40", "--samples", "1"]);
    assert_eq!(shown.as_bytes(), one);
    let two = String::from_utf8(output(&head, &["--tokens", "40", "--samples", "2"]))?;
    assert!(two.starts_with(&format!("=== 1 ===\n{shown}")), "{two:?} {shown:?}");

    // A state goes on where the text was.
    let state = own.path().join("state").display().to_string();
    let first = output(&head, &["--tokens", "15", "--raw", "--save-state", &state]);
    let load = ["generate", "--checkpoint", &run, "--temperature", "0", "--load-state", &state];
    assert_eq!([first, output(&load, &["--tokens", "25", "--raw"])].concat(), whole);

    // More than a byte a token; a stop ends the text, wherever in a token it stands.
    let head = ["generate", "--checkpoint", &run, "--seed", "3", "--prompt", "The cat "];
    let whole = output(&head, &["--tokens", "40", "--raw"]);
    assert!(whole.len() > 45, "{whole:?}");
    let middle = &whole[whole.len() / 2..][..3];
    let stop = String::from_utf8(middle.to_vec())?;
    let stopped = output(&head, &["--tokens", "40", "--raw", "--stop", &stop]);
    let at = whole.windows(3).position(|window| window == middle).unwrap();
    assert_eq!(stopped, whole[..at]);

    // A conversation.
    let talk = ["generate", "--checkpoint", &run, "--temperature", "0", "--tokens", "12"];
    let assert = gateloop(&talk).arg("--interactive").write_stdin("one\n").assert().success();
    assert_eq!(assert.get_output().stdout, output(&talk, &["--prompt", "one\n"]));
    Ok(())
}

#[test]
fn another_tokenizer_is_refused_by_name() {
    let (run, other) = (run_of("run"), format!("data.tokenizer={}", run_of("b.json")));
    gateloop(&["eval", "--checkpoint", &run, "--set", &other])
        .assert()
        .code(1)
        .stderr(contains("b.json").and(contains("not what").and(contains("data.tokenizer"))));
    // Text that was generated, and no task of bytes.
    gateloop(&["eval", "--checkpoint", &run, "--set", "data.source=synthetic:copy"])
        .assert()
        .code(2)
        .stderr(contains("data.tokenizer").and(contains("synthetic:copy")));
}

#[test]
fn a_checkpoint_alone_is_enough_to_write() -> TestResult {
    let own = tempfile::tempdir()?;
    let alone: PathBuf = own.path().join("alone.safetensors");
    fs::copy(CheckpointFolder::of_run(&folder().join("run")).file(60), &alone)?;
    let prompt = ["--prompt", "The ", "--temperature", "0", "--tokens", "9"];
    let alone = alone.display().to_string();
    assert_eq!(
        output(&["generate", "--checkpoint", &alone], &prompt),
        output(&["generate", "--checkpoint", &run_of("run")], &prompt)
    );
    Ok(())
}
