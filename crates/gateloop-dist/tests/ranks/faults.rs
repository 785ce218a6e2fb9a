//! Ranks that fail the others: each of the others ends in time, and says who it was.

use crate::{error, report};
use gateloop_dist::local::{Ended, Ranks, free_port, variables};
use gateloop_dist::testing::{across, impatient, is_rank, options, told};
use gateloop_dist::{Dist, DistError, Reduce};
use std::env;
use std::path::Path;
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// What a rank's operations may take.
const TIMEOUT_S: u64 = 4;
/// What the whole of it may take: the timeout, the look for who is to blame, and the start of the processes.
const LIMIT: Duration = Duration::from_secs(90);

fn quick(test: &str) -> Command {
    impatient(test, TIMEOUT_S)
}

/// Sums over and over; at the third one rank 1 does what it does.
fn sums(dist: &Dist, fault: fn()) -> Result<(), DistError> {
    for n in 0..6 {
        if n == 3 && dist.world().rank() == 1 {
            fault();
        }
        let ones = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu));
        dist.world().all_reduce(&ones, Reduce::Sum)?;
    }
    Ok(())
}

/// Runs ranks of which number 1 has a fault, and gives what became of them.
fn faulty(test: &str, size: usize, fault: fn()) -> Option<Vec<Ended>> {
    if is_rank() {
        if let Some(dist) = report(Dist::from_env(&options())) {
            report(sums(&dist, fault));
        }
        return None;
    }
    let ranks = Ranks::start(size, free_port().unwrap(), |_| quick(test)).unwrap();
    // Number 1 may never end.
    let others: Vec<usize> = (0..size).filter(|rank| *rank != 1).collect();
    Some(ranks.wait_for(&others, LIMIT).unwrap())
}

/// Every rank but number 1 blames it, and nobody else.
fn assert_blamed(ended: &[Ended], how: &str) {
    for (rank, ended) in ended.iter().enumerate().filter(|(rank, _)| *rank != 1) {
        let error = error(ended).unwrap_or_else(|| panic!("rank {rank}: {}", told(ended)));
        assert!(error.starts_with(&format!("rank {rank}: all_reduce (number ")), "{error}");
        assert!(error.contains(&format!("failed: rank 1 {how}")), "{error}");
        assert_eq!(error.matches("; rank").count(), 0, "{error}");
    }
}

#[test]
fn a_rank_that_dies() {
    for size in [2, 4] {
        let die = || process::exit(9);
        let Some(ended) = faulty("faults::a_rank_that_dies", size, die) else { return };
        assert_blamed(&ended, "gives no sign of life");
    }
}

#[test]
fn a_rank_that_hangs() {
    let hang = || thread::sleep(LIMIT);
    let Some(ended) = faulty("faults::a_rank_that_hangs", 3, hang) else { return };
    assert_blamed(&ended, "lives, but is still after operation number 4");
    assert!(ended[1].status.is_none());
}

#[test]
fn a_rank_that_is_stopped() {
    let stop = || {
        let _ = Command::new("kill").args(["-STOP", &process::id().to_string()]).status();
    };
    let Some(ended) = faulty("faults::a_rank_that_is_stopped", 3, stop) else { return };
    assert_blamed(&ended, "gives no sign of life");
}

/// The store goes with rank 0.
#[test]
fn the_first_rank_that_dies_or_is_stopped() {
    const TEST: &str = "faults::the_first_rank_that_dies_or_is_stopped";
    if is_rank() {
        let Some(dist) = report(Dist::from_env(&options())) else { return };
        let first = dist.is_first();
        report(sums(&dist, || ()));
        if first {
            match env::var("GATELOOP_TEST_FAULT").as_deref() {
                Ok("die") => process::exit(9),
                _ => {
                    let _ =
                        Command::new("kill").args(["-STOP", &process::id().to_string()]).status();
                }
            }
        }
        report(sums(&dist, || ()));
        return;
    }
    for fault in ["die", "stop"] {
        let command = |_| {
            let mut command = quick(TEST);
            command.env("GATELOOP_TEST_FAULT", fault);
            command
        };
        let ranks = Ranks::start(3, free_port().unwrap(), command).unwrap();
        // A stopped process is killed by the limit, which is then what this takes.
        let ended = ranks.wait_for(&[1, 2], LIMIT).unwrap();
        for ended in &ended[1..] {
            let error = error(ended).unwrap_or_else(|| panic!("{}", told(ended)));
            assert!(error.contains("failed: rank 0 gives no sign of life"), "{fault}: {error}");
        }
    }
}

#[test]
fn a_rank_that_says_why_it_ends() {
    const TEST: &str = "faults::a_rank_that_says_why_it_ends";
    if is_rank() {
        let Some(dist) = report(Dist::from_env(&options())) else { return };
        if dist.world().rank() == 1 {
            dist.fail("the disk\nis full");
        } else {
            report(sums(&dist, || ()));
        }
        return;
    }
    let ended = Ranks::start(3, free_port().unwrap(), |_| quick(TEST)).unwrap().wait(LIMIT);
    assert_blamed(&ended.unwrap(), "ended: the disk is full");
}

#[test]
fn a_rank_that_thinks_that_all_is_done() {
    const TEST: &str = "faults::a_rank_that_thinks_that_all_is_done";
    if is_rank() {
        let Some(dist) = report(Dist::from_env(&options())) else { return };
        if dist.world().rank() != 1 {
            report(sums(&dist, || ()));
        }
        return;
    }
    let ended = Ranks::start(2, free_port().unwrap(), |_| quick(TEST)).unwrap().wait(LIMIT);
    assert_blamed(&ended.unwrap(), "has ended, as if all were done");
}

/// Ranks started with other variables than they should have.
fn started(test: &str, places: &[(usize, usize)]) -> Option<Vec<Ended>> {
    if is_rank() {
        report(Dist::from_env(&options()));
        return None;
    }
    let port = free_port().unwrap();
    let mut ranks = Ranks::start(0, port, |_| quick(test)).unwrap();
    for (rank, size) in places {
        let mut command = quick(test);
        command.envs(variables(*rank, *size, port));
        ranks.push(command).unwrap();
    }
    Some(ranks.wait(LIMIT).unwrap())
}

#[test]
fn a_rank_that_never_starts() {
    const TEST: &str = "faults::a_rank_that_never_starts";
    let Some(ended) = started(TEST, &[(0, 4), (2, 4)]) else { return };
    for ended in ended {
        let error = error(&ended).unwrap_or_else(|| panic!("{}", told(&ended)));
        assert!(error.starts_with("ranks 1, 3 of 4 did not come within 4 s"), "{error}");
    }
}

#[test]
fn a_first_rank_that_never_starts() {
    const TEST: &str = "faults::a_first_rank_that_never_starts";
    let Some(ended) = started(TEST, &[(1, 2)]) else { return };
    let error = error(&ended[0]).unwrap_or_else(|| panic!("{}", told(&ended[0])));
    assert!(error.starts_with("rank 1: rank 0 does not answer at 127.0.0.1:"), "{error}");
}

#[test]
fn a_wrong_number_of_ranks() {
    const TEST: &str = "faults::a_wrong_number_of_ranks";
    let Some(ended) = started(TEST, &[(0, 2), (1, 3), (2, 3)]) else { return };
    let said: Vec<&str> = ended.iter().map(|ended| error(ended).unwrap_or_default()).collect();
    assert!(
        said[0].starts_with("rank 1 has WORLD_SIZE for 3 ranks, rank 0 has 2 ranks"),
        "{said:?}"
    );
    assert!(said[1].contains("rank 0 has WORLD_SIZE for 2 ranks"), "{said:?}");
    // Rank 0 knows nothing of this one, and may have gone with the store before it came.
    let has_seen = ["rank 0 has WORLD_SIZE for 2 ranks", "rank 0 does not answer"];
    assert!(has_seen.iter().any(|text| said[2].contains(text)), "{said:?}");
}

#[test]
fn two_processes_that_are_the_same_rank() {
    const TEST: &str = "faults::two_processes_that_are_the_same_rank";
    if is_rank() {
        let dist = report(Dist::from_env(&options()));
        // Those that met stay together until the one too many has come.
        let gone_on = env::var("GATELOOP_TEST_GO_ON").unwrap();
        while dist.is_some() && !Path::new(&gone_on).exists() {
            thread::sleep(Duration::from_millis(20));
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (go_on, port) = (folder.path().join("go on"), free_port().unwrap());
    let mut ranks = Ranks::start(0, port, |_| quick(TEST)).unwrap();
    for (rank, size) in [(0, 2), (1, 2), (1, 2)] {
        let mut command = quick(TEST);
        command.envs(variables(rank, size, port)).env("GATELOOP_TEST_GO_ON", &go_on);
        ranks.push(command).unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    while !(ranks.has_ended(1).unwrap() || ranks.has_ended(2).unwrap()) {
        assert!(Instant::now() < deadline, "none of them was refused");
        thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(&go_on, "").unwrap();
    let ended = ranks.wait(LIMIT).unwrap();
    let said: Vec<_> = ended.iter().filter_map(error).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("another process is rank 1 already (process "), "{said:?}");
}

#[test]
fn a_port_in_use() {
    const TEST: &str = "faults::a_port_in_use";
    if is_rank() {
        report(Dist::from_env(&options()));
        return;
    }
    let taken = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = Ranks::start(2, port, |_| quick(TEST)).unwrap().wait(LIMIT).unwrap();
    let said: Vec<_> = ended.iter().map(|ended| error(ended).unwrap_or_default()).collect();
    assert!(said[0].starts_with(&format!("port {port} is in use by another process")), "{said:?}");
    // Whoever listens there speaks another language.
    assert!(said[1].starts_with("rank 1: rank 0 does not answer at"), "{said:?}");
}

/// Nothing of these faults is left behind that would keep ranks from meeting.
#[test]
fn ranks_meet_after_ranks_that_failed() {
    across("faults::ranks_meet_after_ranks_that_failed", 2, |dist| {
        sums(dist, || ()).unwrap();
    });
}
