//! Real processes on this machine: every test starts its own program again, once a rank.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod faults;
mod operations;

use gateloop_dist::local::{Ended, Ranks, free_port};
use gateloop_dist::{Dist, DistError, Options};
use std::env;
use std::process::Command;
use std::time::Duration;

/// Set in the processes that are ranks.
const IS_RANK: &str = "GATELOOP_TEST_IS_RANK";

/// What a rank of a test may wait; short, for tests of ranks that do not come.
fn options() -> Options {
    let seconds = env::var("GATELOOP_TEST_TIMEOUT").ok().and_then(|s| s.parse().ok());
    let timeout = Duration::from_secs(seconds.unwrap_or(60));
    Options { timeout, beat: Duration::from_millis(100), ..Options::default() }
}

fn is_rank() -> bool {
    env::var_os(IS_RANK).is_some()
}

/// The program of this test, to be started as a rank.
fn program(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(IS_RANK, "1").env("OMP_NUM_THREADS", "1");
    command
}

/// Runs the body on `size` ranks, each a process.
fn across(test: &str, size: usize, body: impl Fn(&Dist)) {
    if is_rank() {
        return body(&Dist::from_env(&options()).unwrap());
    }
    let ranks = Ranks::start(size, free_port().unwrap(), |_| program(test)).unwrap();
    for (rank, ended) in ranks.wait(Duration::from_mins(2)).unwrap().iter().enumerate() {
        assert!(ended.is_success(), "rank {rank}: {}", told(ended));
        assert!(ended.stdout.contains("1 passed"), "rank {rank} ran nothing: {}", ended.stdout);
    }
}

/// What a rank had to say.
fn told(ended: &Ended) -> String {
    format!("{:?}\n{}\n{}", ended.status, ended.stdout, ended.stderr)
}

/// In a rank: prints the error, for the test to read.
fn report<T>(result: Result<T, DistError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            // libtest does not end its own line before.
            println!("\nERROR {error}");
            None
        }
    }
}

/// What [`report`] printed.
fn error(ended: &Ended) -> Option<&str> {
    ended.stdout.lines().find_map(|line| line.strip_prefix("ERROR "))
}
