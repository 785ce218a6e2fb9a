//! The kernels' text, as the package's build has packed it.

/// Names, in order, and packed texts.
static KERNELS: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A kernel's PTX, with nothing of the others; `None` if there is no such kernel.
pub(crate) fn ptx(kernel: &str) -> Option<Vec<u8>> {
    let at = KERNELS.binary_search_by_key(&kernel, |(name, _)| name).ok()?;
    miniz_oxide::inflate::decompress_to_vec(KERNELS[at].1).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use std::{fs, str};

    /// A kernel's body, from its parameters on, as it stands in the file that it comes from.
    fn body<'a>(text: &'a str, name: &str) -> &'a str {
        let from = text.find(&format!(".entry {name}(")).unwrap();
        let len = text[from..].find("\n}\n").unwrap();
        &text[from..from + len]
    }

    #[test]
    fn every_kernel_is_packed_whole_and_alone() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/ptx");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            for line in text.lines().filter(|line| line.starts_with(".visible .entry ")) {
                let name = line.trim_start_matches(".visible .entry ").trim_end_matches('(');
                let packed = ptx(name).unwrap();
                let packed = str::from_utf8(&packed).unwrap();
                assert_eq!(body(packed, name), body(&text, name));
                assert_eq!(packed.matches(".entry ").count(), 1, "{name}");
                count += 1;
            }
        }
        assert_eq!(count, KERNELS.len());
        assert!(ptx("scan_of_nothing").is_none());
    }
}
