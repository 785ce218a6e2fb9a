//! Whether a file is what was written, and where it is not.
//!
//! The header holds a checksum (CRC-32C) of the bytes of every tensor and of every text beside them. Files of other
//! programs have none, and are taken as they are.

use super::{Metadata, WeightsError};
use safetensors::SafeTensorError;
use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The entry of the header that holds the checksums.
const KEY: &str = "gateloop.crc32c";

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = 8;

/// Checksums by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Checksums {
    tensors: BTreeMap<String, u32>,
    texts: BTreeMap<String, u32>,
}

impl Checksums {
    /// Those of the texts of a header.
    pub(super) fn of_texts(metadata: &Metadata) -> Self {
        let sum = |(key, text): (&String, &String)| (key.clone(), crc32c::crc32c(text.as_bytes()));
        Self { tensors: BTreeMap::new(), texts: metadata.iter().map(sum).collect() }
    }

    pub(super) fn add(&mut self, tensor: &str, bytes: &[u8]) {
        self.tensors.insert(tensor.to_owned(), crc32c::crc32c(bytes));
    }

    /// Puts them among the texts.
    pub(super) fn write(&self, metadata: &mut Metadata) -> serde_json::Result<()> {
        metadata.insert(KEY.to_owned(), serde_json::to_string(self)?);
        Ok(())
    }
}

/// Errs if the bytes of a file are not those whose checksums its header holds; takes the checksums out of the texts.
pub(super) fn check(
    path: &Path,
    bytes: &[u8],
    tensors: &SafeTensors<'_>,
    metadata: &mut Metadata,
) -> Result<(), WeightsError> {
    let Some(text) = metadata.remove(KEY) else { return Ok(()) };
    let damaged = |offset: usize, problem: String| {
        Err(WeightsError::Damaged { path: path.to_owned(), offset: offset as u64, problem })
    };
    let sums: Checksums = match serde_json::from_str(&text) {
        Ok(sums) => sums,
        Err(error) => {
            return damaged(LENGTH_BYTES, format!("the checksums in the header: {error}"));
        }
    };
    let found = Checksums::of_texts(metadata).texts;
    if let Some(key) = first_difference(&sums.texts, &found) {
        let problem = format!("`{key}` in the header is not what was written");
        return damaged(LENGTH_BYTES, problem);
    }
    for (name, view) in tensors.iter() {
        let data = view.data();
        if sums.tensors.get(name) != Some(&crc32c::crc32c(data)) {
            // The view lies within the file's bytes.
            let start = data.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
            let problem = format!(
                "the {} bytes of `{name}` from there on are not what was written",
                data.len()
            );
            return damaged(start, problem);
        }
    }
    if let Some(name) = sums.tensors.keys().find(|name| tensors.tensor(name).is_err()) {
        return damaged(LENGTH_BYTES, format!("`{name}` is missing from the header"));
    }
    Ok(())
}

/// A key whose values are not alike, or that only one has.
fn first_difference<'a>(
    a: &'a BTreeMap<String, u32>,
    b: &'a BTreeMap<String, u32>,
) -> Option<&'a String> {
    a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key))
}

/// Where the parser stopped, in bytes from the start of a file of `len` bytes.
pub(super) fn offset(error: &SafeTensorError, len: usize) -> u64 {
    let offset = match error {
        SafeTensorError::HeaderTooLarge => 0,
        // The file ends where more was promised, or goes on where nothing was.
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::InvalidHeaderLength
        | SafeTensorError::MetadataIncompleteBuffer => len,
        SafeTensorError::InvalidHeader(error) => LENGTH_BYTES + error.valid_up_to(),
        SafeTensorError::InvalidHeaderDeserialization(error) => {
            LENGTH_BYTES + error.column().saturating_sub(1)
        }
        _ => LENGTH_BYTES,
    };
    offset.min(len) as u64
}
