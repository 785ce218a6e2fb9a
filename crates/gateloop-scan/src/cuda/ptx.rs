//! The kernels' text, as the package's build has packed it.

/// Names, in order, and packed texts.
static KERNELS: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A kernel's PTX; `None` if there is no such kernel.
pub(crate) fn ptx(kernel: &str) -> Option<Vec<u8>> {
    let at = KERNELS.binary_search_by_key(&kernel, |(name, _)| name).ok()?;
    miniz_oxide::inflate::decompress_to_vec(KERNELS[at].1).ok()
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
