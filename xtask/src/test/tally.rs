//! Counting tests from what libtest prints.
//!
//! A test that cannot do its work on this machine passes after printing `skipped: <why>`. libtest
//! counts it as passed; here it counts as skipped, so that a green run does not claim too much.

use std::collections::BTreeSet;
use std::fmt;

/// The counts over all test programs so far.
#[derive(Debug)]
pub(super) struct Tally {
    /// Leave out what passing tests print, save for their reasons to skip.
    terse: bool,
    counts: Counts,
    /// Within the output of the tests that passed.
    in_successes: bool,
    /// The test whose output is being read.
    test: String,
    /// Tests of this program that said they could do nothing.
    skipped: BTreeSet<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    pub(super) fn new(terse: bool) -> Self {
        Self {
            terse,
            counts: Counts::default(),
            in_successes: false,
            test: String::new(),
            skipped: BTreeSet::new(),
        }
    }

    /// Takes one line of a test program; returns what is to be printed of it.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(result) = Counts::parse(line) {
            self.add(result);
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some(test) = output_heading(line) {
            test.clone_into(&mut self.test);
        } else if line.starts_with("skipped:") {
            return Some(self.skip(line));
        }
        (!self.terse || !self.in_successes).then(|| line.to_owned())
    }

    fn skip(&mut self, line: &str) -> String {
        // Without captured output a line has no test to belong to; then each counts.
        let test = if self.in_successes { self.test.clone() } else { String::new() };
        let shown = match test.as_str() {
            "" => line.to_owned(),
            test => format!("{line} ({test})"),
        };
        self.skipped.insert(if test.is_empty() {
            format!("#{}", self.skipped.len())
        } else {
            test
        });
        shown
    }

    /// Ends the account of one test program.
    fn add(&mut self, result: Counts) {
        // No more than passed: a line that a failing test printed is no skipped test.
        let skipped = self.skipped.len().min(result.passed);
        self.counts.passed += result.passed - skipped;
        self.counts.failed += result.failed;
        self.counts.skipped += result.skipped + skipped;
        self.skipped.clear();
        self.in_successes = false;
        self.test.clear();
    }
}

impl Counts {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`
    fn parse(line: &str) -> Option<Self> {
        let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |kind: &str| {
            counts.split("; ").find_map(|part| {
                let (number, name) = part.split_once(' ')?;
                (name == kind).then(|| number.parse().ok()).flatten()
            })
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

/// `---- name of the test stdout ----`
fn output_heading(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { passed, failed, skipped } = self.counts;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test a::one ... ok
test a::two ... ok
test b::three ... FAILED
test b::four ... ignored, too slow

successes:

---- a::one stdout ----
chatter
skipped: no CUDA device
skipped: no second device

---- a::two stdout ----
chatter

successes:
    a::one
    a::two

failures:

---- b::three stdout ----
thread panicked

failures:
    b::three

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn read(terse: bool, times: usize) -> (Tally, Vec<String>) {
        let mut tally = Tally::new(terse);
        let mut printed = Vec::new();
        for _ in 0..times {
            printed.extend(OUTPUT.lines().filter_map(|line| tally.line(line)));
        }
        (tally, printed)
    }

    #[test]
    fn a_skipped_test_counts_once_and_not_as_passed() {
        assert_eq!(read(true, 1).0.to_string(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(read(false, 1).0.to_string(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(read(true, 3).0.to_string(), "3 passed, 3 failed, 6 skipped");
    }

    #[test]
    fn terse_output_keeps_failures_and_reasons_to_skip() {
        let (_, printed) = read(true, 1);
        let has = |line: &str| printed.iter().any(|it| it == line);
        assert!(has("skipped: no CUDA device (a::one)"));
        assert!(has("thread panicked"));
        assert!(has("test a::two ... ok"));
        assert!(!has("chatter"));
        assert_eq!(read(false, 1).1.len(), OUTPUT.lines().count());
    }

    #[test]
    fn uncaptured_reasons_are_counted_too() {
        let mut tally = Tally::new(false);
        for line in [
            "skipped: no CUDA device",
            "test a ... ok",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out",
        ] {
            tally.line(line);
        }
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(tally.line("test result: a lie"), Some("test result: a lie".to_owned()));
    }
}
