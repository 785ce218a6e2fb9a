//! Parity without Python: a small case for every option, as the references wrote it.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use gateloop_parity::{Report, check};
use safetensors::SafeTensors;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    files
}

/// What is wrong, in words.
fn faults(report: &Report) -> Vec<String> {
    let mut faults = report.problems.clone();
    for quantity in report.quantities.iter().filter(|quantity| !quantity.ok) {
        faults.push(format!("{quantity:?}"));
    }
    if let Some((equal, all)) = report.greedy.filter(|(equal, all)| equal != all) {
        faults.push(format!("greedy: {equal} of {all} tokens"));
    }
    faults
}

#[test]
fn every_fixture_agrees_with_its_reference() {
    // Rounding is compared too, and depends on how products are split between threads.
    tch::set_num_threads(1);
    let mut frameworks = BTreeSet::new();
    for path in fixtures() {
        let report = check(&path, None).unwrap();
        assert!(report.ok(), "{}: {:#?}", report.case, faults(&report));
        assert!(report.quantities.len() >= 2, "{} compares something", report.case);
        frameworks.insert(report.framework);
    }
    assert_eq!(frameworks.into_iter().collect::<Vec<_>>(), ["jax", "pytorch"]);
}

#[test]
fn the_fixtures_are_many_and_small() {
    let files = fixtures();
    let bytes: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(files.len() >= 24, "{} cases", files.len());
    assert!(bytes < 2 << 20, "{bytes} bytes");
}

/// The comparison sees a difference: weights changed by a hundredth, and a case is no longer right.
#[test]
fn changed_weights_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for path in fixtures() {
        let mut bytes = fs::read(&path).unwrap();
        for (start, end) in weights_in(&bytes) {
            // Every other one, as a norm would take a common factor out again.
            for element in bytes[start..end].chunks_exact_mut(4).step_by(2) {
                let value = f32::from_le_bytes((&*element).try_into().unwrap());
                element.copy_from_slice(&(value * 1.01).to_le_bytes());
            }
        }
        let changed = folder.path().join(path.file_name().unwrap());
        fs::write(&changed, bytes).unwrap();
        let report = check(&changed, None).unwrap();
        assert!(!report.ok(), "{}: the weights were changed", report.case);
    }
}

/// Where the weights of a case lie in its bytes.
fn weights_in(bytes: &[u8]) -> Vec<(usize, usize)> {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let mut places = Vec::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| name.starts_with("param.")) {
        let start = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        places.push((start, start + tensor.data().len()));
    }
    places
}
