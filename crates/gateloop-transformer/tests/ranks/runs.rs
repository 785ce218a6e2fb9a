//! Whole runs of the program.

use crate::common::TestResult;
use crate::program::{
    LIMIT, assert_close, everything, recorded, start, succeed, train, write_config,
};
use gateloop_dist::local::{Ranks, free_port, variables};
use gateloop_transformer::checkpoint::CheckpointFolder;
use std::fs;
use std::path::Path;
use std::process::Command;

const NEW: [&str; 2] = ["--config", "config.toml"];

fn with<'a>(some: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let sets = more.iter().flat_map(|entry| ["--set", entry]);
    some.iter().copied().chain(sets).collect()
}

fn assert_same_records(a: &Path, b: &Path) {
    for key in ["train/loss", "grad_norm", "valid/bpc", "tokens", "lr"] {
        let (a, b) = (recorded(a, key), recorded(b, key));
        assert_eq!(a.len(), b.len(), "{key}");
        for ((step, a), (_, b)) in a.into_iter().zip(b) {
            assert!((a - b).abs() <= 1e-5 * a.abs(), "{key} at step {step}: {a} {b}");
        }
    }
}

#[test]
fn ranks_make_the_run_of_one_process_with_all_their_windows() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    succeed(1, at, "alone", &with(&NEW, &["train.batch_size=4"]));
    let whole = everything(&at.join("alone"), 6);
    for (run, size, more) in [
        ("two", 2, &["train.batch_size=2"][..]),
        ("four", 4, &["train.batch_size=1", "dist.shard_optimizer=true"]),
        ("slices", 2, &["train.batch_size=4", "dist.sequence_ranks=2"]),
        ("both", 4, &["train.batch_size=2", "dist.sequence_ranks=2", "train.recompute=true"]),
    ] {
        let said = succeed(size, at, run, &with(&NEW, more));
        assert!(said.contains(&format!("256 tokens a step on {size} ranks")), "{said}");
        assert_close(&everything(&at.join(run), 6), &whole);
        assert_same_records(&at.join(run), &at.join("alone"));
        assert_eq!(recorded(&at.join(run), "ranks").len(), 6);
    }
    Ok(())
}

#[test]
fn a_run_goes_on_with_other_ranks_and_says_so() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    succeed(1, at, "alone", &with(&NEW, &["train.batch_size=4", "train.steps=12"]));
    succeed(1, at, "run", &with(&NEW, &["train.batch_size=4", "train.steps=3"]));
    let go_on = |size, more: &[&str]| succeed(size, at, "run", &with(&["--resume"], more));
    let said = go_on(2, &["train.batch_size=2", "train.steps=6"]);
    assert!(
        said.contains(
            "2 in place of 1 groups of ranks: a step learns from 256 tokens, not from 256"
        ),
        "{said}"
    );
    let shard = ["train.batch_size=1", "train.steps=9", "dist.shard_optimizer=true"];
    assert!(go_on(4, &shard).contains("resumed at step 6"));
    let back = ["train.batch_size=4", "train.steps=12", "dist.shard_optimizer=false"];
    assert!(go_on(1, &back).contains("1 in place of 4 groups of ranks"));
    assert_close(&everything(&at.join("run"), 12), &everything(&at.join("alone"), 12));
    assert_same_records(&at.join("run"), &at.join("alone"));
    // Without a word about the batch, a step is another one; that is said.
    let said = go_on(2, &["train.steps=15"]);
    assert!(said.contains("a step learns from 512 tokens, not from 256"), "{said}");
    Ok(())
}

#[test]
fn states_that_are_carried_go_on_where_they_were() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    let carry = ["train.carry_state=true", "train.window_order=sequential"];
    succeed(2, at, "whole", &with(&NEW, &carry));
    succeed(2, at, "run", &with(&with(&NEW, &carry), &["train.steps=3"]));
    succeed(2, at, "run", &with(&["--resume"], &["train.steps=6"]));
    let (whole, resumed) = (everything(&at.join("whole"), 6), everything(&at.join("run"), 6));
    assert!(whole.keys().any(|name| name.ends_with("state.complex")), "{:?}", whole.keys());
    assert_eq!(whole, resumed);
    // One process with all the windows has the same states.
    succeed(1, at, "alone", &with(&with(&NEW, &carry), &["train.batch_size=4"]));
    assert_close(&everything(&at.join("alone"), 6), &whole);
    // On other ranks the stretches are others, which is said.
    let said = succeed(1, at, "run", &with(&["--resume"], &["train.steps=7"]));
    assert!(said.contains("the number of ranks is another one than before"), "{said}");
    Ok(())
}

#[test]
fn a_signal_to_one_rank_stops_all_after_the_same_step() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    let ranks = start(3, at, "run", &with(&NEW, &["train.steps=100000"]));
    while CheckpointFolder::of_run(&at.join("run")).newest().is_err() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let id = ranks.id(2).unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status()?.success());
    let ended = ranks.wait(LIMIT)?;
    for ended in &ended {
        assert_eq!(ended.status.and_then(|status| status.code()), Some(130), "{ended:?}");
    }
    let said = &ended[0].stdout;
    let step: u64 = {
        let rest = said.split("stopped after step ").nth(1).unwrap();
        rest.split(';').next().unwrap().parse()?
    };
    let newest = CheckpointFolder::of_run(&at.join("run")).newest()?;
    assert_eq!(newest.checkpoint.progress().step, step);
    let more = ["train.checkpoint_every=0", &format!("train.steps={}", step + 2)];
    succeed(3, at, "run", &with(&["--resume"], &more));
    Ok(())
}

/// As torchrun does it, with the same command.
#[test]
fn a_run_that_is_started_again_goes_on() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    succeed(2, at, "run", &with(&NEW, &["train.steps=3"]));
    let again = |size| {
        Ranks::start(size, free_port().unwrap(), |_| {
            let mut command = train(at, "run", &NEW);
            // It would delete the run if this were its first start.
            command.arg("--overwrite").env("TORCHELASTIC_RESTART_COUNT", "1");
            command
        })
    };
    for ended in again(2)?.wait(LIMIT)? {
        assert!(ended.is_success(), "{ended:?}");
    }
    let steps: Vec<u64> = recorded(&at.join("run"), "train/loss").iter().map(|r| r.0).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    for ended in again(1)?.wait(LIMIT)? {
        assert!(ended.stderr.contains("resumed at step 6"), "{ended:?}");
    }
    Ok(())
}

/// Ranks whose commands differ in what they add.
fn unlike(at: &Path, adds: [&[&str]; 2]) -> Vec<(Option<i32>, String)> {
    let port = free_port().unwrap();
    let mut ranks = Ranks::start(0, port, |_| Command::new("true")).unwrap();
    for (rank, more) in adds.into_iter().enumerate() {
        let mut command = train(at, "run", more);
        command.envs(variables(rank, 2, port));
        ranks.push(command).unwrap();
    }
    let ended = ranks.wait(LIMIT).unwrap().into_iter();
    ended.map(|e| (e.status.and_then(|status| status.code()), e.stderr)).collect()
}

#[test]
fn ranks_with_other_configurations_or_data_do_not_begin() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    let said = unlike(at, [&NEW, &with(&NEW, &["train.lr=0.5"])]);
    let text = "rank 1 has another configuration: train.lr = 0.5, rank 0 has train.lr = 0.001";
    assert!(said[0].1.contains(text), "{said:?}");
    assert!(said[1].1.contains("rank 0 has another configuration: train.lr = 0.001"), "{said:?}");

    // The same words, but not the same file behind them.
    for (name, byte) in [("0", b'a'), ("1", b'b')] {
        let own = at.join(name);
        fs::create_dir(&own)?;
        fs::write(own.join("text"), vec![byte; 10_000])?;
        write_config(&own);
    }
    let port = free_port()?;
    let mut ranks = Ranks::start(0, port, |_| Command::new("true"))?;
    for rank in 0..2 {
        let own = at.join(rank.to_string());
        let mut command = train(&own, "run", &with(&NEW, &["data.source=text"]));
        command.args(["--set", "data.train_bytes=5000", "--set", "data.valid_bytes=1000"]);
        command.envs(variables(rank, 2, port));
        ranks.push(command)?;
    }
    for (rank, ended) in ranks.wait(LIMIT)?.iter().enumerate() {
        assert!(ended.stderr.contains(&format!("rank {} has data ", 1 - rank)), "{ended:?}");
    }
    assert!(["run", "0/run", "1/run"].iter().all(|run| !at.join(run).exists()));
    Ok(())
}

#[test]
fn what_one_rank_refuses_ends_the_others() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    fs::create_dir(at.join("run"))?;
    fs::write(at.join("run/letter"), "dear")?;
    let said = unlike(at, [&NEW, &NEW]);
    assert_eq!((said[0].0, said[1].0), (Some(2), Some(1)), "{said:?}");
    assert!(said[0].1.contains("`run` exists"), "{said:?}");
    assert!(said[1].1.contains("rank 0 ended: `run` exists"), "{said:?}");
    assert_eq!(fs::read_to_string(at.join("run/letter"))?, "dear");

    let said = unlike(at, [&with(&NEW, &["dist.sequence_ranks=3"]); 2].each_ref().map(|s| &s[..]));
    assert!(
        said.iter().all(|(code, said)| *code == Some(2)
            && said.contains("`dist.sequence_ranks` = 3, but there are 2")),
        "{said:?}"
    );
    Ok(())
}
