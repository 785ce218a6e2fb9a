//! Generated data: what its lines are, and which of their bytes are answers.

use super::{config, file, message};
use crate::config::Synthetic;
use crate::data::synthetic::Rule;
use crate::data::*;

fn generated(kind: impl std::fmt::Display, train: usize, valid: usize) -> Corpus {
    Corpus::open(&config(&format!("synthetic:{kind}"), Some(train), Some(valid))).unwrap()
}

#[test]
fn generated_data_have_the_sizes_asked_for_and_never_change() {
    for kind in Synthetic::ALL {
        let corpus = generated(kind, 5_000, 3_000);
        assert_eq!(Split::ALL.map(|split| corpus.split(split).len()), [5_000, 3_000, 3_000]);
        assert_ne!(corpus.split(Split::Valid), corpus.split(Split::Test));
        let longer = generated(kind, 9_000, 3_000);
        assert_eq!(&longer.split(Split::Train)[..5_000], corpus.split(Split::Train));
        assert_eq!(longer.split(Split::Valid), corpus.split(Split::Valid));
    }
    let default = Corpus::open(&config("synthetic:text", None, None)).unwrap();
    assert_eq!(
        default.describe(),
        "synthetic:text: 4,000,000 train, 200,000 valid, 200,000 test bytes"
    );
    let start = |kind: Synthetic| {
        String::from_utf8(generated(kind, 40, 1).split(Split::Train).to_vec()).unwrap()
    };
    assert_eq!(start(Synthetic::Text), "Ella hurried to the palace. Last winter,");
    let start = |kind: &str| start(kind.parse().unwrap());
    assert_eq!(start("copy"), "wkmgpycevwaeskywjelgikfqxpgulusunhabcfyv");
    assert_eq!(start("recall"), "g6u2q8l4y8h7p7t5d2i0w0e0x2r9a8?t5e0x2i0r");
    let huge = Corpus::open(&config("synthetic:text", Some(usize::MAX), None));
    assert!(message(huge).contains("allowed in memory"));
}

#[test]
fn copies_are_copies() {
    let corpus = generated("copy", 20_000, 1);
    let text = String::from_utf8(corpus.split(Split::Train).to_vec()).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    assert!(lines.len() > 100);
    for line in lines {
        let (payload, copy) = line.trim_end().split_once('|').unwrap();
        assert_eq!(payload, copy);
        assert!((8..=64).contains(&payload.len()));
    }
}

#[test]
fn recalled_pairs_are_those_that_were_given() {
    let corpus = generated("recall", 20_000, 1);
    let text = String::from_utf8(corpus.split(Split::Train).to_vec()).unwrap();
    let pairs = |text: &str| {
        let mut pairs: Vec<_> = text.as_bytes().chunks(2).map(<[u8]>::to_vec).collect();
        pairs.sort();
        pairs
    };
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let (given, asked) = line.trim_end().split_once('?').unwrap();
        assert_eq!(pairs(given), pairs(asked));
        let mut keys: Vec<_> = given.bytes().step_by(2).collect();
        assert!((4..=16).contains(&keys.len()) && keys.iter().all(u8::is_ascii_lowercase));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len() * 2, given.len());
    }
}

/// The byte that a line asks for, worked out without the generator; `None` where nothing is asked for.
fn solved(kind: Synthetic, before: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(before).unwrap();
    let last = before.last().copied();
    match kind {
        Synthetic::Copy { .. } | Synthetic::SelectiveCopy { .. } => {
            let (payload, given) = text.split_once('|')?;
            payload.bytes().filter(|byte| *byte != b'.').nth(given.len())
        }
        Synthetic::Recall { .. } => {
            let (pairs, asked) = text.split_once('?')?;
            let key = asked.chars().next_back().filter(char::is_ascii_lowercase)?;
            pairs.as_bytes().get(pairs.find(key)? + 1).copied()
        }
        Synthetic::InductionHeads { .. } => {
            let first =
                text.find('!').filter(|first| last == Some(b'!') && *first + 1 < text.len())?;
            Some(before[first + 1])
        }
        Synthetic::MemoryHorizon { .. } => {
            let list = text.rsplit('|').next()?.strip_suffix('=')?;
            list.bytes().max()
        }
        Synthetic::Text => None,
    }
}

#[test]
fn a_perfect_predictor_needs_nothing_but_the_line_so_far() {
    let sizes =
        ["copy?len=9", "selective_copy?len=5&tokens=5", "recall?pairs=4", "induction_heads?len=2"];
    let others = sizes.into_iter().chain(["memory_horizon?len=1&values=2"]);
    for kind in Synthetic::ALL.into_iter().chain(others.map(|text| text.parse().unwrap())) {
        let corpus = generated(kind, 20_000, 1);
        let (bytes, tokens) = (corpus.split(Split::Train), corpus.tokens(Split::Train));
        assert_eq!(tokens.has_answers(), kind.has_answers());
        assert!(bytes.iter().all(|byte| byte.is_ascii_graphic() || b" \n".contains(byte)));
        let Some(marks) = tokens.marks(0, bytes.len(), 0) else { continue };
        let (mut line, mut answers) = (0, 0);
        for (place, mark) in marks.into_iter().enumerate() {
            let before = &bytes[line..place];
            match mark {
                Mark::End => {
                    assert_eq!(bytes[place], b'\n');
                    assert!(answers > 0, "{kind}: a line without an answer");
                    (line, answers) = (place + 1, 0);
                }
                Mark::Answer => {
                    answers += 1;
                    assert_eq!(solved(kind, before), Some(bytes[place]), "{kind}: {before:?}");
                    // That it is asked for does not depend on the answer.
                    let other = [before, b"#"].concat();
                    let mark = Tokens::of_task(&other, Rule::of(kind)).marks(before.len(), 1, 0);
                    assert_eq!(mark, Some(vec![Mark::Answer]));
                }
                Mark::Other => {
                    let solved = solved(kind, before);
                    assert_eq!(solved, None, "{kind}: {before:?} asks, and it is not marked");
                }
                Mark::Unknown => panic!("all is known"),
            }
        }
        // The last line may be cut off.
        assert!(line > bytes.len() / 2);
    }
}

#[test]
fn answers_of_a_line_that_began_before_the_window_are_unknown_unless_carried() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = b"ab.|ab\n.cd|cd\n";
    let tokens = Tokens::of_task(bytes, Rule::of("selective_copy".parse().unwrap()));
    let marks = |start, len, known_from| -> String {
        let marks = tokens.marks(start, len, known_from).unwrap();
        let shown = |mark| match mark {
            Mark::Other => '.',
            Mark::Answer => 'A',
            Mark::Unknown => '?',
            Mark::End => '|',
        };
        marks.into_iter().map(shown).collect()
    };
    assert_eq!(marks(0, 14, 0), "....AA|....AA|");
    assert_eq!(marks(1, 13, 1), "...??|....AA|");
    assert_eq!(marks(5, 9, 5), "?|....AA|");
    assert_eq!(marks(5, 9, 0), "A|....AA|");
    assert_eq!(marks(7, 7, 7), "....AA|");
    assert_eq!(marks(12, 2, 8), "?|");
    // Through the samplers: a stretch that begins in a line does not know it, whatever is carried.
    let path = file(folder.path(), "task", bytes);
    let mut corpus = Corpus::open(&config(&path, Some(14), Some(0))).unwrap();
    assert_eq!(corpus.tokens(Split::Train).marks(0, 14, 0), None);
    corpus.set_rule(Rule::of("selective_copy".parse().unwrap()));
    let sampler = || StreamSampler::new(&corpus, Split::Train, 3, 1, 1).unwrap();
    let count = |mut sampler: StreamSampler| -> Vec<usize> {
        let windows = (0..4).map(|_| sampler.next_batch(1).0.marks.unwrap());
        windows.map(|marks| marks.iter().filter(|mark| **mark == Mark::Answer).count()).collect()
    };
    assert_eq!(count(sampler()), [0, 0, 0, 0]);
    assert_eq!(count(sampler().carried()), [0, 2, 0, 2]);
    let random = fixed_windows(&corpus, Split::Train, 2, 6).unwrap();
    assert!(random.has_answers());
    let chunks: Vec<_> = random.chunks(1).map(|chunk| chunk.marks.unwrap()).collect();
    assert_eq!(chunks.concat(), random.marks.unwrap());
    let first_only = fixed_windows(&corpus, Split::Train, 1, 3).unwrap();
    assert!(!first_only.has_answers());
}

#[test]
fn lines_look_as_they_are_described() {
    let first = |kind: &str| {
        let corpus = generated(kind, 2_000, 1);
        let text = String::from_utf8(corpus.split(Split::Train).to_vec()).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    let line = first("selective_copy?len=20&tokens=4");
    let (noise, answer) = line.split_once('|').unwrap();
    assert_eq!((noise.len(), answer.len()), (20, 4));
    assert_eq!(noise.matches('.').count(), 16);
    let line = first("induction_heads?len=12");
    assert_eq!((line.len(), line.matches('!').count()), (15, 2));
    for line in first("memory_horizon?len=6&values=3").split('|') {
        let digits = line.split('=').next().unwrap();
        assert!(
            (1..=6).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..b'3').contains(&b))
        );
    }
}

#[test]
fn what_was_seen_before_a_reset_does_not_help() {
    // Of the largest digit since the last reset, that of the whole line is a poor guess.
    let kind: Synthetic = "memory_horizon".parse().unwrap();
    let corpus = generated(kind, 100_000, 1);
    let (mut answers, mut misled, mut largest) = (0.0, 0.0, 0);
    let mut marks = corpus.tokens(Split::Train).marks(0, 100_000, 0).unwrap().into_iter();
    for byte in corpus.split(Split::Train) {
        match marks.next().unwrap() {
            Mark::Answer => {
                answers += 1.0;
                misled += f64::from(u8::from(*byte != largest));
            }
            Mark::End => largest = 0,
            _ => largest = largest.max(if byte.is_ascii_digit() { *byte } else { 0 }),
        }
    }
    assert!(misled / answers > 0.35, "{misled} of {answers}");
}

#[test]
fn generated_text_is_sentences_of_plain_words() {
    let corpus = generated(Synthetic::Text, 50_000, 1);
    let text = String::from_utf8(corpus.split(Split::Train).to_vec()).unwrap();
    assert!(text.bytes().all(|byte| byte.is_ascii_alphabetic() || b" ,.\n".contains(&byte)));
    assert!(!text.contains("  ") && !text.contains(" a a") && !text.contains(" an b"));
    for paragraph in text.split("\n\n").take(20) {
        assert!(paragraph.split(". ").all(|sentence| sentence.starts_with(char::is_uppercase)));
    }
}
