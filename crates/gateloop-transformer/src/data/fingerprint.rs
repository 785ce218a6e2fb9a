//! Telling whether data is what it was.

use crate::hex::hex;
use sha2::{Digest, Sha256};

/// Data of up to so many bytes is read whole.
const WHOLE: usize = 256 << 20;
/// Of more, so many blocks are read.
const BLOCKS: usize = 1024;
/// Bytes of a block.
const BLOCK: usize = 64 << 10;

/// The length and the beginning of a SHA-256 of the bytes; of more than 256 MiB, of 1,024 blocks of 64 KiB from the
/// first to the last, so that a run on a large file starts at once.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    if bytes.len() <= WHOLE {
        hash.update(bytes);
    } else {
        let last = bytes.len() - BLOCK;
        for block in 0..BLOCKS {
            let start = (last as u128 * block as u128 / (BLOCKS - 1) as u128) as usize;
            hash.update(&bytes[start..start + BLOCK]);
        }
    }
    format!("{}-{}", bytes.len(), hex(&hash.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, WHOLE, fingerprint};

    #[test]
    fn it_is_length_and_hash() {
        assert_eq!(fingerprint(b"abc"), "3-ba7816bf8f01cfea414140de5dae2223");
        assert_ne!(fingerprint(b"abc"), fingerprint(b"abd"));
    }

    #[test]
    fn the_ends_of_large_data_count() {
        let mut bytes = vec![0; WHOLE + 3 * BLOCK + 1];
        let before = fingerprint(&bytes);
        for at in [0, bytes.len() - 1] {
            bytes[at] = 1;
            assert_ne!(fingerprint(&bytes), before);
            bytes[at] = 0;
        }
        assert_eq!(fingerprint(&bytes), before);
    }
}
