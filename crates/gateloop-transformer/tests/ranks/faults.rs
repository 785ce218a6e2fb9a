//! Ranks that hang or are stopped in the middle of a run, and what the others say.

use crate::common::TestResult;
use crate::program::{LIMIT, TIMEOUT_S, start, succeed, wait_for_a_step, write_config};
use gateloop_transformer::checkpoint::CheckpointFolder;
use std::process::Command;
use std::time::{Duration, Instant};

/// A rank that is stopped, or killed, in the middle of a run: each of the others ends in time and names it.
#[test]
fn a_stopped_or_killed_rank_is_named_and_the_run_goes_on_afterwards() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    let run = at.join("run");
    let mut more = vec!["--config", "config.toml", "--set", "train.steps=100000"];
    for (signal, victim) in [("-STOP", 1), ("-STOP", 0), ("-KILL", 2), ("-KILL", 0)] {
        let mut ranks = start(3, at, "run", &more);
        more = vec!["--resume"];
        wait_for_a_step(&run, &mut ranks, 3);
        let id = ranks.id(victim).unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status()?.success());
        let begun = Instant::now();
        let others: Vec<usize> = (0..3).filter(|rank| *rank != victim).collect();
        let ended = ranks.wait_for(&others, LIMIT)?;
        // The timeout, and the look for who is to blame.
        assert!(begun.elapsed() < Duration::from_secs(TIMEOUT_S + 30), "{signal} {victim}");
        for rank in others {
            let ended = &ended[rank];
            assert_eq!(ended.status.and_then(|status| status.code()), Some(1), "{ended:?}");
            let blamed = format!("failed: rank {victim} gives no sign of life");
            assert!(ended.stderr.contains(&blamed), "{signal} {victim}: {ended:?}");
            assert!(
                ended.stderr.contains(&format!("rank {rank}: all_reduce (number ")),
                "{ended:?}"
            );
        }
    }
    let step = CheckpointFolder::of_run(&run).newest()?.checkpoint.progress().step;
    let steps = format!("train.steps={}", step + 1);
    succeed(3, at, "run", &["--resume", "--set", &steps]);
    Ok(())
}
