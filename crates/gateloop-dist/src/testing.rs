//! Tests on several ranks: a test that starts its own program again, once a rank.
//!
//! ```no_run
//! use gateloop_dist::testing::across;
//!
//! #[test]
//! fn two_ranks_meet() {
//!     across("two_ranks_meet", 2, |dist| assert_eq!(dist.world().size(), 2));
//! }
//! ```

use crate::local::{Ended, Ranks, free_port};
use crate::{Dist, Options};
use std::env;
use std::process::Command;
use std::time::Duration;

/// Set in the processes that are ranks.
const IS_RANK: &str = "GATELOOP_TEST_IS_RANK";

/// Seconds that the ranks of a test may wait for one another.
const TIMEOUT: &str = "GATELOOP_TEST_TIMEOUT_S";

/// Whether this process is a rank that a test has started.
pub fn is_rank() -> bool {
    env::var_os(IS_RANK).is_some()
}

/// This test program as a rank that runs one test: `test` is the test's whole name, as in `faults::a_port_in_use`.
///
/// # Panics
/// If the path of this program is not to be had.
pub fn program(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program has a path"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    // Ranks on one machine share its cores.
    command.env(IS_RANK, "1").env("OMP_NUM_THREADS", "1");
    command
}

/// The same with so many seconds for the ranks to wait for one another.
pub fn impatient(test: &str, seconds: u64) -> Command {
    let mut command = program(test);
    command.env(TIMEOUT, seconds.to_string());
    command
}

/// What the ranks of a test wait for one another: as long as [`impatient`] says, or a minute.
pub fn options() -> Options {
    let seconds = env::var(TIMEOUT).ok().and_then(|seconds| seconds.parse().ok());
    let timeout = Duration::from_secs(seconds.unwrap_or(60));
    Options { timeout, beat: Duration::from_millis(100), ..Options::default() }
}

/// Runs `body` on `size` ranks, each a process, and fails unless all of them pass. What the first one prints is printed.
///
/// # Panics
/// If a rank fails, which is what a test is for.
pub fn across(test: &str, size: usize, body: impl FnOnce(&Dist)) {
    if is_rank() {
        // libtest does not end its own line before.
        println!();
        return body(&Dist::from_env(&options()).expect("the ranks meet"));
    }
    let port = free_port().expect("a port is free");
    let ranks = Ranks::start(size, port, |_| program(test)).expect("ranks start");
    let ended = ranks.wait(Duration::from_mins(5)).expect("ranks end");
    for (rank, ended) in ended.iter().enumerate() {
        assert!(ended.is_success(), "rank {rank}: {}", told(ended));
        assert!(ended.stdout.contains("1 passed"), "rank {rank} ran nothing: {}", ended.stdout);
    }
    if let Some(first) = ended.first() {
        first
            .stdout
            .lines()
            .filter(|line| !is_of_libtest(line))
            .for_each(|line| println!("{line}"));
    }
}

/// Whether libtest, and not the test, wrote a line.
fn is_of_libtest(line: &str) -> bool {
    let begins = ["test ", "running ", "ok"];
    line.is_empty() || begins.iter().any(|begin| line.starts_with(begin))
}

/// What a rank had to say.
pub fn told(ended: &Ended) -> String {
    format!("{:?}\n{}\n{}", ended.status, ended.stdout, ended.stderr)
}
