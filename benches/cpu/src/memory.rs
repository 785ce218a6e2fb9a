//! The memory of this process, as Linux counts it.

use crate::error::{Problem, Result};
use std::fs;

/// Resident bytes before the work, and the most there were during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peak {
    pub(crate) before: u64,
    pub(crate) peak: u64,
}

/// Runs `work` and reads the peak. What the process took earlier, and gave back, counts only where the
/// kernel does not let the mark be reset.
pub(crate) fn peak_of(work: impl FnOnce() -> Result<()>) -> Result<Peak> {
    let status = || fs::read_to_string("/proc/self/status");
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = field(&status()?, "VmRSS")?;
    work()?;
    Ok(Peak { before, peak: field(&status()?, "VmHWM")? })
}

/// From now on this process takes what it touches and no more, so that a peak tells what a length adds.
///
/// It has no large pages: with pages of 2 MB a step of a thousand tokens is known to a seventh. And MKL, libtorch's
/// products, gives its buffers back after each product: they grow with the length up to some seven hundred tokens, to
/// 1.5 MB. Where the system or libtorch knows no such thing, nothing changes.
pub(crate) fn take_no_more_than_needed() {
    // SAFETY: no other thread of this process has been started, or reads its environment.
    unsafe { std::env::set_var("MKL_DISABLE_FAST_MM", "1") };
    #[cfg(target_os = "linux")]
    {
        use std::ffi::{c_int, c_ulong};

        unsafe extern "C" {
            fn prctl(option: c_int, ...) -> c_int;
        }
        /// Of linux/prctl.h.
        const PR_SET_THP_DISABLE: c_int = 41;
        let [on, unused]: [c_ulong; 2] = [1, 0];
        // SAFETY: sets a flag of this process.
        unsafe { prctl(PR_SET_THP_DISABLE, on, unused, unused, unused) };
    }
}

fn field(status: &str, field: &'static str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.ok_or(Problem::Status { field })? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(field(status, "VmHWM").unwrap(), 2 << 20);
        assert_eq!(field(status, "VmRSS").unwrap(), 1 << 20);
        assert!(field("VmRSSX: 1 kB", "VmRSS").is_err());
    }
}
