//! The kernels' text, as the package's build has packed it.

/// Names, in order, and packed texts.
static KERNELS: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A kernel's PTX; `None` if there is no such kernel.
pub(crate) fn ptx(kernel: &str) -> Option<Vec<u8>> {
    let at = KERNELS.binary_search_by_key(&kernel, |(name, _)| name).ok()?;
    miniz_oxide::inflate::decompress_to_vec(KERNELS[at].1).ok()
}

/// Checks that a kernel takes arguments of these sizes, and no others, and at most so many threads.
#[cfg(test)]
pub(crate) fn assert_takes(kernel: &str, arguments: &[usize], threads: usize) {
    let text = ptx(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
    let text = String::from_utf8_lossy(&text);
    let entry = text.split_once(&format!(".entry {kernel}(\n"));
    let entry = entry.unwrap_or_else(|| panic!("{kernel} is not in its own file")).1;
    let head = entry.split_once('{').map_or(entry, |(head, _)| head);
    for (i, bytes) in arguments.iter().enumerate() {
        let argument = format!(".b8 {kernel}_param_{i}[{bytes}]");
        assert!(head.contains(&argument), "{argument} in {head}");
    }
    assert!(!head.contains(&format!("{kernel}_param_{}", arguments.len())), "{head}");
    assert!(head.contains(&format!(".maxntid {threads}, 1, 1")), "{threads} in {head}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use crate::cuda::{geometry, heads, plan, rows};
    use std::fs;

    #[test]
    fn every_kernel_is_packed_whole() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/ptx");
        let without_tiles = heads::KERNELS.into_iter().chain(rows::KERNELS);
        let names: Vec<String> = geometry::names()
            .chain(without_tiles)
            .map(str::to_owned)
            .chain(plan::step_names())
            .collect();
        for name in &names {
            let text = fs::read(format!("{folder}/{name}.ptx")).unwrap();
            assert_eq!(ptx(name).unwrap(), text, "{name}");
        }
        assert_eq!(KERNELS.len(), names.len());
        assert!(ptx("scan_of_nothing").is_none());
    }
}
