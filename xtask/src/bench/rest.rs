//! Waiting until nobody works any more.
//!
//! A worker that has answered is not always done: libraries free memory in the background, and their threads spin for
//! a while before they sleep. What is timed meanwhile shares the cores with that. A jax worker went on for 120 ms after
//! its answer, and the scan that was timed next took 1.5 times as long.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// At least so long.
const PAUSE: Duration = Duration::from_millis(10);
/// Over so long a process must not have computed. Linux counts in hundredths of a second.
const LOOK: Duration = Duration::from_millis(25);
/// At most so long: a process that never sleeps is not waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// Waits until none of some processes computes. Where the system does not tell, only for a moment.
pub(super) fn until_idle(processes: &[u32]) {
    thread::sleep(PAUSE);
    let begun = Instant::now();
    let mut before = processor_time(processes);
    while before.is_some() && begun.elapsed() < LIMIT {
        thread::sleep(LOOK);
        let now = processor_time(processes);
        if now == before {
            break;
        }
        before = now;
    }
}

/// What all of them have computed, in ticks of the kernel's clock.
fn processor_time(processes: &[u32]) -> Option<u64> {
    let of = |process| in_ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?);
    // One that has ended computes no more.
    let known: Vec<u64> = processes.iter().filter_map(of).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

/// Time in the program and in the kernel, of a line of `/proc/PID/stat`.
fn in_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, and may have blanks in it; these are 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|time| time.parse::<u64>().ok());
    Some(times.next()? + times.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_after_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a) 1 b) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 5 6 20 0 3 0 99 1000 20";
        assert_eq!(in_ticks(stat), Some(42));
        assert_eq!(in_ticks("7 (a) S 1 7"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_process_computes_is_seen() {
        let own = [std::process::id()];
        let before = processor_time(&own).unwrap();
        let mut sum = 0_u64;
        while processor_time(&own).unwrap() < before + 2 {
            sum = std::hint::black_box(sum + 1);
        }
        // Processes that there are not are not waited for.
        until_idle(&[u32::MAX]);
    }
}
