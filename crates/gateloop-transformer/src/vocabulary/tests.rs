//! Tests of tokenizers: what they spell, byte by byte.

#[path = "../../tests/common/tokenizer.rs"]
mod tokenizer;

use super::subwords::{LONGEST, PIECE, piece_end};
use super::{Vocabulary, VocabularyError};
use crate::config::DataConfig;
use crate::data::{Corpus, DataError, Split, WindowSampler, fixed_windows};
use std::path::Path;
use tokenizer::byte_level;
use tokenizers::Tokenizer;

const TEXT: &str = "the lighthouse and the harbour; the lantern and the anchor. naïve 日本\n";

fn spelled() -> Vocabulary {
    let rest = "quick brown foxes jump over lazy dogs, beyond seven mountains; who knows why?";
    Vocabulary::from_json(byte_level(&(TEXT.repeat(20) + rest), 300), "a test").unwrap()
}

/// A tokenizer as those of Llama: spaces as `▁`, put before every text, and bytes where it knows no character. It has
/// the truncation that files often have.
fn in_context(with_bytes: bool) -> Vocabulary {
    let bytes = (0..if with_bytes { 256 } else { 0 }).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = bytes.chain(('a'..='z').map(String::from));
    let tokens = tokens.chain(["▁", "▁t", "he", "▁the"].map(str::to_owned));
    let vocab: serde_json::Map<_, _> = tokens.zip(0..).map(|(t, n)| (t, n.into())).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": with_bytes,
            "ignore_merges": false, "vocab": vocab,
            "merges": [["▁", "t"], ["h", "e"], ["▁t", "he"]]
        }
    });
    Vocabulary::from_json(json.to_string(), "a test").unwrap()
}

fn text(vocabulary: &Vocabulary, tokens: &[i64]) -> String {
    String::from_utf8(vocabulary.decode(tokens)).unwrap()
}

#[test]
fn bytes_are_their_own_tokens() {
    let vocabulary = Vocabulary::bytes();
    assert_eq!(vocabulary.encode(b"\xFFab").unwrap(), [255, 97, 98]);
    assert_eq!(vocabulary.decode(&[97, 300, 98]), "a\u{FFFD}b".as_bytes());
    assert_eq!((vocabulary.num_tokens(), vocabulary.json()), (256, None));
    vocabulary.check(2).unwrap();
}

#[test]
fn byte_level_tokens_spell_any_bytes_exactly() {
    let vocabulary = spelled();
    assert_eq!(vocabulary.num_tokens(), 300);
    let broken = [b"cut \xE6\x97", "日本 \0\r\n".as_bytes(), b"\xFF end\xE6"].concat();
    for bytes in [TEXT.as_bytes(), &broken, b"\xFF", b""] {
        let tokens = vocabulary.encode(bytes).unwrap();
        assert_eq!(vocabulary.decode(&tokens), bytes);
    }
    let tokens = vocabulary.encode(TEXT.as_bytes()).unwrap();
    assert!(tokens.len() * 2 < TEXT.len(), "{}", tokens.len());
    // A token's bytes come at once, parts of characters as well.
    let mut decoder = vocabulary.decoder();
    assert!(tokens.iter().all(|token| !decoder.push(*token).is_empty()));
    assert_eq!(decoder.push(300), "\u{FFFD}".as_bytes());
    assert_eq!(decoder.push(-1), "\u{FFFD}".as_bytes());
}

#[test]
fn special_tokens_are_spelled_as_they_stand() {
    let mut json: serde_json::Value = serde_json::from_str(&byte_level(TEXT, 260)).unwrap();
    json["added_tokens"] = serde_json::json!([{
        "id": 260, "content": "<|é end|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    }]);
    let vocabulary = Vocabulary::from_json(json.to_string(), "a test").unwrap();
    assert_eq!(vocabulary.num_tokens(), 261);
    let tokens = vocabulary.encode("a<|é end|>b".as_bytes()).unwrap();
    assert_eq!((tokens.len(), tokens[1]), (3, 260));
    assert_eq!(text(&vocabulary, &tokens), "a<|é end|>b");
    assert_eq!(text(&vocabulary, &[261]), "\u{FFFD}");
}

#[test]
fn tokens_whose_text_depends_on_others_come_out_as_the_whole_does() {
    let vocabulary = in_context(true);
    for written in ["the he then", "a é the 日 b", "x"] {
        let tokens = vocabulary.encode(written.as_bytes()).unwrap();
        assert_eq!(text(&vocabulary, &tokens), written);
        let mut decoder = vocabulary.decoder();
        let parts: Vec<Vec<u8>> = tokens.iter().map(|token| decoder.push(*token)).collect();
        // Characters come out whole.
        assert!(parts.iter().all(|part| std::str::from_utf8(part).is_ok()));
    }
    // What follows a text keeps its space, which the beginning of a text does not.
    let mut decoder = vocabulary.decoder();
    let the = vocabulary.encode(b"the").unwrap()[0];
    assert_eq!([decoder.push(the), decoder.push(the)].concat(), b"the the");
    // Bytes that make no character come at the end, as what they are shown as.
    let broken = vocabulary.encode(b"a\xE6").unwrap();
    assert_eq!(text(&vocabulary, &broken), "a\u{FFFD}");
    assert_eq!(text(&vocabulary, &[the, 9999, the]), "the\u{FFFD}the");
}

#[test]
fn what_a_tokenizer_cannot_write_is_named() {
    let vocabulary = in_context(false);
    let error = vocabulary.encode(b"the \xFF").unwrap_err();
    assert!(matches!(error, VocabularyError::NotText { byte: 0xFF, offset: 4, .. }), "{error}");
    let error = vocabulary.check(29).unwrap_err().to_string();
    assert!(error.contains("`model.num_tokens` = 29") && error.contains("30 tokens"), "{error}");
    vocabulary.check(30).unwrap();
    let error = Vocabulary::open(Path::new("no/such.json")).unwrap_err().to_string();
    assert!(error.contains("no/such.json") && error.contains("data.tokenizer"), "{error}");
    for json in ["", "{}", "[1]", "\"text\""] {
        let error = Vocabulary::from_json(json.to_owned(), "bad.json").unwrap_err();
        assert!(matches!(error, VocabularyError::Parse { .. }), "{error}");
        assert!(error.to_string().contains("bad.json"));
    }
}

#[test]
fn pieces_end_where_words_do() {
    let mut lines = String::new();
    while lines.len() < 5 * PIECE {
        lines.push_str("the lighthouse and\nthe harbour\n\n  and  \n then ");
    }
    let vocabulary = spelled();
    let mut heard = Vec::new();
    let pieces = vocabulary.encode_long(lines.as_bytes(), "", &mut |done| heard.push(done));
    let whole: Tokenizer = vocabulary.json().unwrap().parse().unwrap();
    let whole = whole.encode_fast(lines.as_str(), false).unwrap();
    assert_eq!(pieces.unwrap().unwrap(), whole.get_ids());
    assert_eq!(heard, [lines.len() as u64]);

    assert_eq!(piece_end(b"a\nb", 0), 3);
    let mut text = vec![b'x'; 3 * PIECE];
    assert_eq!(piece_end(&text, 5), 3 * PIECE);
    text[PIECE + 9] = b'\n';
    text[PIECE + 10] = b'\n';
    text[PIECE + 40] = b'\n';
    assert_eq!(piece_end(&text, 0), PIECE + 41);
    // Without an end of a line, before a character.
    let wide = "日".repeat(LONGEST);
    let end = piece_end(wide.as_bytes(), 0);
    assert!(end <= LONGEST && wide.is_char_boundary(end) && end > LONGEST - 3);
    let bytes = vec![0x80; LONGEST + 10];
    assert_eq!(piece_end(&bytes, 0), LONGEST);
}

/// A corpus of a file of `bytes` in subwords, cut behind `train` bytes and behind as many again.
fn corpus(bytes: &[u8], train: usize, vocabulary: Vocabulary) -> Result<Corpus, DataError> {
    corpus_of(bytes, train, vocabulary, None)
}

/// The same with documents.
fn corpus_of(
    bytes: &[u8],
    train: usize,
    vocabulary: Vocabulary,
    documents: Option<&str>,
) -> Result<Corpus, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, bytes).unwrap();
    let config = DataConfig {
        source: path.to_str().unwrap().parse().unwrap(),
        tokenizer: None,
        train_bytes: Some(train),
        valid_bytes: Some(train),
        documents: documents.map(|documents| documents.parse().unwrap()),
    };
    Corpus::open_with(&config, vocabulary)
}

#[test]
fn splits_are_cut_by_bytes_and_read_by_tokens() {
    let vocabulary = spelled();
    let bytes = TEXT.repeat(9);
    let corpus = corpus(bytes.as_bytes(), 3 * TEXT.len(), vocabulary.clone()).unwrap();
    let mut all = 0;
    for split in Split::ALL {
        let (text, tokens) = (corpus.split(split), corpus.tokens(split));
        assert_eq!(text.len(), 3 * TEXT.len());
        let mut ids = Vec::new();
        tokens.copy_to(0, tokens.len(), &mut ids);
        assert_eq!(ids, vocabulary.encode(text).unwrap());
        assert_eq!(tokens.bytes_per_token(), text.len() as f64 / ids.len() as f64);
        assert!(!tokens.has_answers() && tokens.marks(0, 1, 0).is_none());
        all += tokens.len();
    }
    assert!(corpus.describe().ends_with("subwords"), "{}", corpus.describe());
    // The same samplers read them.
    let window = fixed_windows(&corpus, Split::Valid, 1, 7).unwrap();
    let mut ids = Vec::new();
    corpus.tokens(Split::Valid).copy_to(0, 8, &mut ids);
    assert_eq!(window.ids, ids);
    let mut sampler = WindowSampler::new(&corpus, Split::Train, 20, 1).unwrap();
    let row = sampler.next_batch(1).ids;
    assert!(
        bytes
            .as_bytes()
            .windows(vocabulary.decode(&row).len())
            .any(|w| w == vocabulary.decode(&row))
    );
    // A window is as long as tokens are, not bytes.
    let error = fixed_windows(&corpus, Split::Test, 1, all / 3).unwrap_err().to_string();
    assert!(error.contains(&format!("{} tokens", all / 3)), "{error}");
    corpus.check_vocabulary(300).unwrap();
    let error = corpus.check_vocabulary(299).unwrap_err().to_string();
    assert!(error.contains("`model.num_tokens` to 300"), "{error}");
}

#[test]
fn no_split_begins_inside_a_character() {
    for cut in 4..=6 {
        let corpus = corpus("日日日日日".as_bytes(), cut, spelled()).unwrap();
        let lens = Split::ALL.map(|split| corpus.split(split).len());
        assert_eq!(lens.iter().sum::<usize>(), 15);
        assert!(lens.iter().all(|len| len % 3 == 0), "{cut}: {lens:?}");
    }
    // Bytes that make no characters are cut where they were to be.
    let corpus = corpus(&[0x80; 20], 8, spelled()).unwrap();
    assert_eq!(Split::ALL.map(|split| corpus.split(split).len()), [8, 8, 4]);
    let error = self::corpus(b"ab\xFF", 1, in_context(false)).unwrap_err().to_string();
    assert!(error.contains("byte 255 at offset 0 of the test split"), "{error}");
}

#[test]
fn no_token_has_a_part_in_two_documents() {
    let vocabulary = spelled();
    let lines = format!("{TEXT}\nthe second\n\n{TEXT}\n");
    let train = lines.len();
    let bytes = lines.repeat(3);
    let corpus =
        corpus_of(bytes.as_bytes(), train, vocabulary.clone(), Some("separator:\n")).unwrap();
    for split in Split::ALL {
        let tokens = corpus.tokens(split);
        let (mut ids, mut starts) = (Vec::new(), Vec::new());
        tokens.copy_to(0, tokens.len(), &mut ids);
        tokens.document_starts(0, tokens.len(), &mut starts);
        let mut edges: Vec<usize> = (0..ids.len()).filter(|n| starts[*n]).collect();
        edges.insert(0, 0);
        edges.push(ids.len());
        let documents: Vec<String> =
            edges.windows(2).map(|edge| text(&vocabulary, &ids[edge[0]..edge[1]])).collect();
        let expected: Vec<&str> = lines.split_inclusive('\n').collect();
        assert_eq!(documents, expected);
        for (edge, line) in edges.windows(2).zip(expected) {
            assert_eq!(ids[edge[0]..edge[1]], vocabulary.encode(line.as_bytes()).unwrap());
        }
    }
}

#[test]
fn a_byte_without_a_token_is_told_by_its_place_in_the_split() {
    let bytes = b"the\nthe \xFF\nthe\n";
    let error = corpus_of(&bytes.repeat(2), bytes.len(), in_context(false), Some("separator:\n"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("byte 255 at offset 8 of the train split"), "{error}");
}
