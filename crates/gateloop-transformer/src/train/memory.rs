//! The memory that the process has needed.

/// The most memory that was resident at once, in bytes; `None` where the system does not say.
pub(super) fn peak_bytes() -> Option<u64> {
    // Linux says it in kB.
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes() {
        let status = "Name:\tgateloop\nVmPeak:\t  900 kB\nVmHWM:\t   320448 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(peak_in(status), Some(328_138_752));
        assert_eq!(peak_in("Name:\tgateloop\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_was_used_counts_after_it_was_given_back() {
        let before = peak_bytes().unwrap();
        // Written to, or it would not become resident.
        drop(std::hint::black_box(vec![1_u8; before as usize + (64 << 20)]));
        assert!(peak_bytes().unwrap() > before + (60 << 20));
    }
}
