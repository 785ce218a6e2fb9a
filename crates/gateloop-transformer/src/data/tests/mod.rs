//! Tests of the corpus, its windows and what it is made of.

mod documents;
mod tasks;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::*;
use crate::config::DataConfig;

fn config(source: &str, train: Option<usize>, valid: Option<usize>) -> DataConfig {
    DataConfig {
        source: source.parse().unwrap(),
        train_bytes: train,
        valid_bytes: valid,
        ..DataConfig::default()
    }
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// 1000 bytes, each known by its place.
fn counting() -> Vec<u8> {
    (0..1000_u32).map(|index| (index % 251) as u8).collect()
}

fn counting_corpus() -> (tempfile::TempDir, Corpus) {
    let folder = tempfile::tempdir().unwrap();
    let corpus =
        Corpus::open(&config(&file(folder.path(), "bytes.bin", &counting()), None, None)).unwrap();
    (folder, corpus)
}

fn message<T: std::fmt::Debug>(result: Result<T, DataError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_file_splits_in_90_5_5_percent() {
    let (_folder, corpus) = counting_corpus();
    let bytes = counting();
    assert_eq!(corpus.split(Split::Train), &bytes[..900]);
    assert_eq!(corpus.split(Split::Valid), &bytes[900..950]);
    assert_eq!(corpus.split(Split::Test), &bytes[950..]);
    assert!(corpus.describe().ends_with("bytes.bin: 900 train, 50 valid, 50 test bytes"));
}

#[test]
fn the_sizes_can_be_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "bytes.bin", &counting());
    let corpus = Corpus::open(&config(&path, Some(300), Some(200))).unwrap();
    assert_eq!(Split::ALL.map(|split| corpus.split(split).len()), [300, 200, 500]);
    let message = message(Corpus::open(&config(&path, Some(990), None)));
    assert!(message.contains("(990)") && message.contains("1000 bytes"), "{message}");
    assert!(Corpus::open(&config(&path, Some(usize::MAX), Some(2))).is_err());
}

#[test]
fn packed_files_hold_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let gz = folder.path().join("a.gz");
    // Two members, as `cat a.gz b.gz` makes.
    for half in counting().chunks(500) {
        let file = File::options().create(true).append(true).open(&gz).unwrap();
        let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        out.write_all(half).unwrap();
        out.finish().unwrap();
    }
    let zip = folder.path().join("a.ZIP");
    zip_of(&zip, &[("a.txt", &counting())]);
    for path in [gz, zip] {
        let corpus = Corpus::open(&config(path.to_str().unwrap(), None, None)).unwrap();
        assert_eq!(corpus.split(Split::Train), &counting()[..900]);
    }
}

/// `packed by xz`, written by xz 5.
const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x0cpacked by xz\x0a\x00\x00\x00\x00\xdf1;J\x0f\xb0as\x00\x01%\x0dq\x19\xc4\xb6\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";
/// `packed by zstd`, written by zstd 1.5.
const ZST: &[u8] = b"(\xb5/\xfd\x04Xy\x00\x00packed by zstd\x0a\xf5\x17\xe0\x0c";

#[test]
fn xz_and_zstd_are_read_stream_after_stream() {
    let folder = tempfile::tempdir().unwrap();
    for (name, packed, text) in [("a.xz", XZ, "packed by xz\n"), ("a.zst", ZST, "packed by zstd\n")]
    {
        let path = file(folder.path(), name, &packed.repeat(3));
        let corpus = Corpus::open(&config(&path, Some(text.len() * 2), Some(1))).unwrap();
        assert_eq!(corpus.split(Split::Train), text.repeat(2).as_bytes());
        assert_eq!(corpus.split(Split::Test).len(), text.len() - 1);
        for damaged in [&packed[..packed.len() - 3], &[packed, b"rest"].concat()] {
            let path = file(folder.path(), &format!("damaged.{name}"), damaged);
            let error = Corpus::open(&config(&path, None, None)).unwrap_err();
            assert!(matches!(error, DataError::Unpack { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn a_folder_is_its_files_in_the_order_of_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().to_str().unwrap();
    let empty = message(Corpus::open(&config(source, None, None)));
    assert!(empty.contains(source) && empty.contains("nothing to read"), "{empty}");
    fs::create_dir_all(folder.path().join("b/.git")).unwrap();
    for (name, bytes) in [
        ("c.txt", &b"last"[..]),
        ("b/2.xz", XZ),
        ("b/1.txt", b"one\n"),
        ("b/.git/x", b"hidden"),
        ("a", b""),
    ] {
        file(folder.path(), name, bytes);
    }
    let corpus = Corpus::open(&config(source, Some(10), Some(2))).unwrap();
    let whole = Split::ALL.map(|split| corpus.split(split)).concat();
    assert_eq!(whole, b"one\npacked by xz\nlast\n");
    fs::write(folder.path().join("b/torn.gz"), b"\x1f\x8b\x08").unwrap();
    let torn = message(Corpus::open(&config(source, None, None)));
    assert!(torn.contains("torn.gz"), "{torn}");
}

fn zip_of(path: &Path, files: &[(&str, &[u8])]) {
    let mut out = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in files {
        out.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap();
}

#[test]
fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let torn = file(folder.path(), "torn.gz", b"\x1f\x8b\x08\0\0\0");
    let not_zip = file(folder.path(), "not.zip", b"hello");
    let two = folder.path().join("two.zip");
    zip_of(&two, &[("a", b"a"), ("b", b"b")]);
    for path in [torn.as_str(), &not_zip, two.to_str().unwrap()] {
        let error = Corpus::open(&config(path, None, None)).unwrap_err();
        assert!(matches!(error, DataError::Unpack { .. }), "{error}");
        assert!(error.to_string().contains(path));
    }
    for path in ["no/such/file", "no/such.gz"] {
        let error = Corpus::open(&config(path, None, None)).unwrap_err();
        assert!(matches!(error, DataError::Open { .. }), "{error}");
        assert!(error.to_string().contains(path) && error.to_string().contains("enwik8"));
    }
}

#[test]
fn an_empty_file_is_short_rather_than_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::open(&config(&file(folder.path(), "empty", b""), None, None)).unwrap();
    assert!(WindowSampler::new(&corpus, Split::Train, 1, 0).is_err());
}

#[test]
fn a_split_shorter_than_a_window_is_named() {
    let (_folder, corpus) = counting_corpus();
    let error = message(WindowSampler::new(&corpus, Split::Valid, 50, 0));
    assert!(error.contains("valid split has 50 tokens") && error.contains("takes 51"), "{error}");
    assert!(error.contains("train.seq_len"));
    assert!(fixed_windows(&corpus, Split::Test, 4, 50).is_err());
    assert!(fixed_windows(&corpus, Split::Test, 4, usize::MAX).is_err());
    assert_eq!(fixed_windows(&corpus, Split::Test, 4, 49).unwrap().batch, 4);
}

#[test]
fn the_same_seed_draws_the_same_windows_on_every_machine() {
    let (_folder, corpus) = counting_corpus();
    let mut sampler = WindowSampler::new(&corpus, Split::Train, 8, 42).unwrap();
    let batch = sampler.next_batch(4);
    assert_eq!((batch.ids.len(), batch.batch, batch.window_len, batch.targets()), (36, 4, 9, 32));
    let firsts: Vec<_> = batch.ids.chunks(9).map(|row| row[0]).collect();
    assert_eq!(firsts, [106, 94, 130, 57]);
    for row in batch.ids.chunks(9) {
        assert!(row.windows(2).all(|pair| (pair[0] + 1) % 251 == pair[1]));
    }
}

#[test]
fn a_restored_sampler_goes_on_exactly() {
    let (_folder, corpus) = counting_corpus();
    let mut whole = WindowSampler::new(&corpus, Split::Train, 16, 7).unwrap();
    whole.next_batch(3);
    let saved = serde_json::to_string(&whole.state()).unwrap();
    let expected = [whole.next_batch(5), whole.next_batch(1)];
    let mut resumed = WindowSampler::new(&corpus, Split::Train, 16, 0).unwrap();
    resumed.restore(serde_json::from_str(&saved).unwrap());
    assert_eq!([resumed.next_batch(5), resumed.next_batch(1)], expected);
    assert_eq!(resumed.state(), SamplerState { seed: 7, drawn: 9 });
    // A damaged state is another position, not a crash.
    resumed.restore(SamplerState { seed: 1, drawn: u64::MAX });
    resumed.next_batch(2);
}

#[test]
fn streams_are_read_from_end_to_end_and_begin_again() {
    let (_folder, corpus) = counting_corpus();
    // Three stretches of 300 bytes: (300 - 1) / 16 = 18 windows.
    let sampler = || StreamSampler::new(&corpus, Split::Train, 16, 3, 1).unwrap();
    let mut streams = sampler();
    let bytes = corpus.split(Split::Train);
    for round in 0..2 {
        for window in 0..18 {
            for first in [0, 1, 2] {
                let (batch, begins) = streams.next_batch(1);
                assert_eq!(begins, window == 0, "round {round}");
                let start = first * 300 + window * 16;
                let expected: Vec<i64> =
                    bytes[start..start + 17].iter().copied().map(i64::from).collect();
                assert_eq!(batch.ids, expected);
            }
        }
    }
    // In batches, and from any position.
    let mut batches = sampler();
    let all: Vec<Batch> = (0..5).map(|_| batches.next_batch(3).0).collect();
    assert_eq!((all[0].batch, all[0].window_len), (3, 17));
    let mut resumed = sampler();
    resumed.restore(SamplerState { seed: 1, drawn: 9 });
    assert_eq!(resumed.next_batch(3).0, all[3]);
    let error = message(StreamSampler::new(&corpus, Split::Valid, 16, 3, 1));
    assert!(error.contains("train.batch_size") && error.contains("51"), "{error}");
}

#[test]
fn random_windows_reach_both_ends_of_the_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "tiny", &(0..40).collect::<Vec<u8>>());
    let corpus = Corpus::open(&config(&path, Some(20), Some(10))).unwrap();
    let mut sampler = WindowSampler::new(&corpus, Split::Valid, 3, 1).unwrap();
    let mut firsts: Vec<_> = sampler.next_batch(500).ids.chunks(4).map(|row| row[0]).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts, (20..=26).collect::<Vec<_>>());
}

#[test]
fn fixed_windows_are_evenly_spaced_from_end_to_end() {
    let (_folder, corpus) = counting_corpus();
    let batch = fixed_windows(&corpus, Split::Test, 5, 9).unwrap();
    let bytes = counting();
    for (row, start) in batch.ids.chunks(10).zip([950, 960, 970, 980, 990]) {
        assert_eq!(row[0], i64::from(bytes[start]));
        assert_eq!(row[9], i64::from(bytes[start + 9]));
    }
    assert_eq!(batch, fixed_windows(&corpus, Split::Test, 5, 9).unwrap());
    assert_eq!(fixed_windows(&corpus, Split::Test, 1, 9).unwrap().ids, batch.ids[..10]);
    assert_eq!(fixed_windows(&corpus, Split::Test, 0, 9).unwrap().batch, 0);
    let chunks: Vec<_> = batch.chunks(2).collect();
    assert_eq!(chunks.iter().map(|chunk| chunk.batch).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(chunks.into_iter().flat_map(|chunk| chunk.ids).collect::<Vec<_>>(), batch.ids);
}

#[test]
fn bytes_outside_a_small_vocabulary_are_found() {
    let (_folder, corpus) = counting_corpus();
    corpus.check_vocabulary(256).unwrap();
    corpus.check_vocabulary(251).unwrap();
    let error = message(corpus.check_vocabulary(100));
    assert!(error.contains("byte 100 at offset 100"), "{error}");
    assert!(error.contains("`model.num_tokens` to 101"), "{error}");
}

#[test]
fn splits_have_names() {
    for split in Split::ALL {
        assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
    }
    assert!(message("dev".parse::<Split>()).contains("train, valid and test"));
}
