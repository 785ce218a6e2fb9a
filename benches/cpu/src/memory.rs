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
