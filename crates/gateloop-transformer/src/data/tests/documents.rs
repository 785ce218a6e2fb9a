//! Where documents begin.

use super::{config, file};
use crate::config::{DataConfig, LossOn};
use crate::data::*;

#[test]
fn windows_know_where_documents_begin() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "lines.txt", b"ab\ncdef\n\ngh\ni");
    let data = DataConfig {
        documents: Some("separator:\n".parse().unwrap()),
        ..config(&path, Some(11), Some(2))
    };
    let corpus = Corpus::open(&data).unwrap();
    let starts = |split, window_len| {
        let windows = fixed_windows(&corpus, split, 1, window_len - 1).unwrap();
        let starts = windows.document_starts.unwrap();
        (0..window_len).filter(|n| starts[*n]).collect::<Vec<_>>()
    };
    assert_eq!(starts(Split::Train, 11), [3, 8, 9]);
    // Places are those of the split.
    assert_eq!(starts(Split::Valid, 2), [1]);
    // What begins a document is not predicted.
    let windows = fixed_windows(&corpus, Split::Train, 1, 10).unwrap();
    let counts = windows.counts(LossOn::All).unwrap();
    assert_eq!(counts.iter().filter(|counts| !**counts).count(), 3);
    // Windows that are cut out of a batch keep theirs.
    let windows = fixed_windows(&corpus, Split::Train, 3, 3).unwrap();
    let pieces: Vec<bool> =
        windows.chunks(1).flat_map(|window| window.document_starts.unwrap()).collect();
    assert_eq!(Some(pieces), windows.document_starts);
    // Without the key nothing is known of documents.
    let corpus = Corpus::open(&config(&path, Some(11), Some(2))).unwrap();
    let windows = fixed_windows(&corpus, Split::Train, 1, 3).unwrap();
    assert_eq!((windows.document_starts.clone(), windows.counts(LossOn::All)), (None, None));
}

#[test]
fn files_of_a_folder_are_documents() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a", &b"one"[..]), ("b", b""), ("c", b"two\n"), ("d", b"three")] {
        file(folder.path(), name, bytes);
    }
    let files = |source: &str| {
        let documents = Some("files".parse().unwrap());
        Corpus::open(&DataConfig { documents, ..config(source, Some(14), Some(0)) })
    };
    let corpus = files(folder.path().to_str().unwrap());
    let windows = fixed_windows(&corpus.unwrap(), Split::Train, 1, 13).unwrap();
    let starts = windows.document_starts.unwrap();
    assert_eq!((0..14).filter(|n| starts[*n]).collect::<Vec<_>>(), [4, 8]);
    let message = files("synthetic:text").unwrap_err().to_string();
    assert!(message.contains("synthetic:text") && message.contains("data.documents"), "{message}");
}
