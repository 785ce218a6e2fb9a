//! Where documents begin.

use super::DataError;
use memchr::memmem;

/// The places behind each separator, in ascending order.
///
/// # Errors
/// [`DataError::NoDocuments`] if there is none.
pub(super) fn behind_each(separator: &str, bytes: &[u8]) -> Result<Vec<usize>, DataError> {
    let places = memmem::find_iter(bytes, separator).map(|place| place + separator.len());
    let places: Vec<usize> = places.filter(|place| *place < bytes.len()).collect();
    if places.is_empty() {
        return Err(DataError::NoDocuments { separator: separator.to_owned() });
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::behind_each;

    #[test]
    fn documents_begin_behind_separators() {
        assert_eq!(behind_each("\n\n", b"a\n\nbc\n\nd\n\n").unwrap(), [3, 7]);
        assert_eq!(behind_each("--", b"----x").unwrap(), [2, 4]);
        let message = behind_each("§", b"abc").unwrap_err().to_string();
        assert!(message.contains("\"§\"") && message.contains("data.documents"), "{message}");
    }
}
