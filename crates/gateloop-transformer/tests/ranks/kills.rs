//! Ranks killed at random moments: the others end in time and say who it was, the last checkpoint is whole, and the run goes
//! on from it to the same end.

use crate::common::TestResult;
use crate::how_often;
use crate::program::{
    LIMIT, TIMEOUT_S, everything, recorded, start, succeed, wait_for_a_step, write_config,
};
use gateloop_dist::local::Ended;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::thread;
use std::time::{Duration, Instant};

/// Kills in all, over as many runs as it takes, unless more are asked for.
const KILLS: usize = 8;
const RANKS: usize = 3;
const STEPS: u64 = 25;
/// Some are killed after less than this, whatever they are doing: loading their libraries, meeting, preparing.
const EARLY_MS: u64 = 700;
/// The others are killed less than this after a step: computing, exchanging gradients, writing a checkpoint.
const LATE_MS: u64 = 60;

/// How the survivors of a kill must have ended.
fn check(ended: &[Ended], victim: usize) {
    for (rank, ended) in ended.iter().enumerate().filter(|(rank, _)| *rank != victim) {
        let code = ended.status.unwrap_or_else(|| panic!("rank {rank} hung: {ended:?}")).code();
        if code == Some(0) {
            // It was done before.
            continue;
        }
        assert_eq!(code, Some(1), "rank {rank} after the end of {victim}: {ended:?}");
        let error = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        let named = [
            format!("rank {victim} gives no sign of life"),
            format!("rank {victim} of {RANKS} did not come"),
            format!("rank {victim} does not answer"),
        ];
        // Or another survivor's words are handed on, which name it.
        assert!(named.iter().any(|named| error.contains(named)), "rank {rank}: {error}");
    }
}

#[test]
fn ranks_that_are_killed_again_and_again_come_to_the_same_end() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write_config(at);
    let steps = format!("train.steps={STEPS}");
    let new = ["--config", "config.toml", "--set", "train.checkpoint_every=1", "--set", &steps];
    succeed(RANKS, at, "alone", &new);
    let end = |run: &str| (everything(&at.join(run), STEPS), recorded(&at.join(run), "train/loss"));
    let expected = end("alone");

    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (all, mut kills, mut runs, mut by_victim) = (how_often::kills(KILLS), 0, 0, [0; RANKS]);
    let mut longest = Duration::ZERO;
    while kills < all {
        runs += 1;
        let name = format!("run{runs}");
        let run = at.join(&name);
        loop {
            let more: &[&str] =
                if run.join("config.toml").is_file() { &["--resume"] } else { &new };
            let mut ranks = start(RANKS, at, &name, more);
            let victim = rng.random_range(0..RANKS);
            if kills < all {
                if rng.random_bool(0.3) {
                    thread::sleep(Duration::from_millis(rng.random_range(0..EARLY_MS)));
                } else {
                    wait_for_a_step(&run, &mut ranks, RANKS);
                    thread::sleep(Duration::from_millis(rng.random_range(0..LATE_MS)));
                }
                // It may have ended by itself.
                let _ = ranks.kill(victim);
            }
            let begun = Instant::now();
            let ended = ranks.wait(LIMIT)?;
            if ended.iter().all(Ended::is_success) {
                break;
            }
            longest = longest.max(begun.elapsed());
            assert_eq!(ended[victim].status.and_then(|status| status.code()), None, "{ended:?}");
            check(&ended, victim);
            (kills, by_victim[victim]) = (kills + 1, by_victim[victim] + 1);
        }
        assert_eq!(end(&name), expected, "{name}, after {kills} kills in all");
    }
    println!(
        "{kills} kills (of ranks 0, 1, 2: {by_victim:?}), {runs} runs, all bit-equal; the others ended within {:.1} s, \
         with a timeout of {TIMEOUT_S} s",
        longest.as_secs_f64()
    );
    Ok(())
}
