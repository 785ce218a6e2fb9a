//! `gateloop generate`: texts, stops, states, and prompts that cannot be.

use super::*;

#[test]
fn generate_writes_the_text_alone() {
    let args = ["generate", "--checkpoint", &run_folder(), "--prompt", "The ", "--tokens", "30"];
    let write = |seed: &str| {
        let output = gateloop(&args).args(["--seed", seed]).assert().success().stderr(is_empty());
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    let text = write("1");
    assert!(text.ends_with('\n') && text.len() > 20, "{text:?}");
    assert_eq!(text, write("1"), "a seed fixes the text");
    assert_ne!(text, write("2"));

    let file = checkpoint().display().to_string();
    let raw =
        gateloop(&["generate", "--checkpoint", &file, "--prompt-file", "-", "--tokens", "30"])
            .args(["--raw", "--temperature", "0"])
            .write_stdin(b"\xFF\x00 any bytes".to_vec())
            .assert()
            .success();
    assert_eq!(raw.get_output().stdout.len(), 30, "raw text has one byte a token and no more");
}

#[test]
fn a_text_ends_before_a_stop() {
    let run = run_folder();
    let args =
        ["generate", "--checkpoint", &run, "--prompt", "The ", "--tokens", "60", "--seed", "1"];
    let write =
        |more: &[&str]| gateloop(&args).args(more).assert().success().get_output().stdout.clone();
    let whole = write(&["--raw"]);
    // A letter of what it writes, so that it is sure to come.
    let at = (8..whole.len()).find(|&at| whole[at].is_ascii_alphanumeric()).unwrap();
    let stop = char::from(whole[at]).to_string();
    let expected = &whole[..whole.iter().position(|byte| *byte == whole[at]).unwrap()];
    assert_eq!(write(&["--raw", "--stop", "not there", "--stop", &stop]), expected);
    let several = write(&["--stop", &stop, "--samples", "2"]);
    let several = String::from_utf8(several).unwrap();
    let texts: Vec<&str> = several.split("=== 2 ===").collect();
    assert_eq!(texts.len(), 2, "{several:?}");
    assert!(texts[0].starts_with("=== 1 ===") && !texts[0][9..].contains(&stop), "{several:?}");
    for (flag, value) in [("--top-p", "0"), ("--min-p", "2"), ("--repetition-penalty", "0")] {
        refused(&[&args[..], &[flag, value]].concat(), &["generate.", value]);
    }
    refused(&[&args[..], &["--top-k", "5", "--filter-thres", "0.5"]].concat(), &["--filter-thres"]);
    assert_ne!(write(&["--top-k", "2"]), whole);
    assert_eq!(write(&["--top-k", "1"]), write(&["--temperature", "0"]));
}

#[test]
fn a_saved_state_goes_on_as_the_text_would() {
    let (run, folder) = (run_folder(), tempfile::tempdir().unwrap());
    let state = folder.path().join("state.safetensors").display().to_string();
    let head = ["generate", "--checkpoint", &run, "--temperature", "0", "--raw"];
    let write =
        |more: &[&str]| gateloop(&head).args(more).assert().success().get_output().stdout.clone();
    let whole = write(&["--prompt", "The cat ", "--tokens", "40"]);
    let first = write(&["--prompt", "The cat ", "--tokens", "15", "--save-state", &state]);
    let second = write(&["--load-state", &state, "--tokens", "25"]);
    assert_eq!([first.clone(), second].concat(), whole);
    // More can be read after a state, and the state is that of all that was read.
    let after = write(&["--load-state", &state, "--prompt", " and ", "--tokens", "10"]);
    let at_once = gateloop(&head)
        .args(["--prompt-file", "-", "--tokens", "10"])
        .write_stdin([b"The cat ".to_vec(), first, b" and ".to_vec()].concat())
        .assert()
        .success();
    assert_eq!(after, at_once.get_output().stdout);

    let other = checkpoint().display().to_string();
    failed(&["generate", "--checkpoint", &run, "--load-state", &other], &["not a saved state"]);
}

#[test]
fn lines_are_answered_in_one_context() {
    let run = run_folder();
    let head = ["generate", "--checkpoint", &run, "--temperature", "0", "--tokens", "12"];
    let talk = |lines: &str| {
        let assert = gateloop(&head).arg("--interactive").write_stdin(lines.to_owned()).assert();
        String::from_utf8(assert.success().get_output().stdout.clone()).unwrap()
    };
    let answer = |prompt: &str| {
        let assert = gateloop(&head).args(["--prompt", prompt]).assert().success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    };
    let first = answer("one\n");
    assert_eq!(talk("one\n"), first);
    // The second line is read after the first one and its answer.
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.safetensors").display().to_string();
    gateloop(&head).args(["--prompt", "one\n", "--save-state", &state]).assert().success();
    let second = gateloop(&head).args(["--load-state", &state, "--prompt", "two\n"]).assert();
    let second = String::from_utf8(second.success().get_output().stdout.clone()).unwrap();
    assert_eq!(talk("one\ntwo\n"), format!("{first}{second}"));
    assert_eq!(talk(""), "");
}

#[test]
fn several_texts_come_under_headings_and_the_first_is_the_single_one() {
    let run = run_folder();
    let args = ["generate", "--checkpoint", &run, "--prompt", "The ", "--tokens", "20"];
    let write = |rest: &[&str]| {
        let output = gateloop(&args).args(["--seed", "4"]).args(rest).assert().success();
        let output = output.get_output();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (single, silence) = write(&[]);
    assert_eq!(silence, "");
    let (three, stats) = write(&["--samples", "3", "--stats"]);
    assert!(three.starts_with(&format!("=== 1 ===\n{single}")), "{three:?} after {single:?}");
    assert!(three.contains("=== 2 ===") && three.contains("=== 3 ==="), "{three:?}");
    for part in ["prompt: 4 tokens", "3 of 20 tokens", "tokens/s", "weights: f32"] {
        assert!(stats.contains(part), "{stats:?} without {part:?}");
    }
    for kind in ["bf16", "int8"] {
        let (_, stats) = write(&["--weights", kind, "--stats"]);
        assert!(stats.contains(&format!("weights: {kind}")), "{stats:?}");
    }
    refused(&[&args[..], &["--samples", "2", "--raw"]].concat(), &["--raw", "--samples"]);
    refused(&[&args[..], &["--weights", "int4"]].concat(), &["int4", "f32, bf16, int8"]);
}

#[test]
fn prompts_that_cannot_be_are_refused() {
    let run = run_folder();
    let with = |rest: &[&'static str]| -> Vec<String> {
        let head = ["generate", "--checkpoint", &run];
        head.iter().chain(rest).map(ToString::to_string).collect()
    };
    let check = |rest: &[&'static str], parts: &[&str]| {
        let args = with(rest);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), parts);
    };
    check(&["--prompt", ""], &["prompt is empty"]);
    check(&[], &["--prompt"]);
    check(&["--prompt", "a", "--tokens", "0"], &["tokens"]);
    check(&["--prompt", "a", "--temperature=-1"], &["generate.temperature"]);
    check(&["--prompt", "a", "--filter-thres", "1.5"], &["generate.filter_thres"]);
    check(&["--prompt", "a", "--device", "gpu"], &["`gpu` is no device", "cuda:N"]);
    check(&["--prompt", "a", "--device", "cuda:200"], &["`cuda:200` cannot be used"]);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        gateloop(&["generate", "--checkpoint", &run, "--prompt"])
            .arg(OsStr::from_bytes(b"caf\xE9"))
            .assert()
            .code(2)
            .stderr(contains("not valid UTF-8").and(contains("--prompt-file")));
    }
}

#[test]
fn a_prompt_outside_a_small_vocabulary_is_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("data"), [1_u8, 2, 3, 4].repeat(3000))?;
    let sets = ["model.num_tokens=5", "data.source=data", "train.steps=1"];
    let train = sets.iter().flat_map(|set| ["--set", *set]);
    fs::write(
        folder.path().join("c.toml"),
        CONFIG.replace("train_bytes = 20000", "").replace("valid_bytes = 4000", ""),
    )?;
    gateloop(&["train", "--config", "c.toml", "--out", "run"])
        .args(train)
        .current_dir(folder.path())
        .assert()
        .success();
    gateloop(&["generate", "--checkpoint", "run", "--prompt", "A"])
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stderr(contains("token id 65").and(contains("0..5")));
    Ok(())
}
