//! Sentences of a small English: a grammar over word lists, with a theme and a hero a paragraph.
//!
//! Letters within a word, word order, the agreement of theme and nouns, and the hero's name and
//! pronoun are patterns of growing length, so a model has something to learn at every distance.

use super::Draws;

/// A world of nouns that go together.
struct Theme {
    people: &'static [&'static str],
    things: &'static [&'static str],
    places: &'static [&'static str],
    qualities: &'static [&'static str],
}

const THEMES: [Theme; 5] = [
    Theme {
        people: &["sailor", "captain", "fisherman", "pilot", "cook"],
        things: &["boat", "net", "rope", "anchor", "lantern", "map", "sail"],
        places: &["harbour", "island", "lighthouse", "beach", "river"],
        qualities: &["wet", "salty", "distant", "grey", "stormy", "broken"],
    },
    Theme {
        people: &["farmer", "shepherd", "miller", "neighbour", "child"],
        things: &["cow", "basket", "plough", "horse", "apple", "fence", "loaf"],
        places: &["field", "barn", "garden", "mill", "village"],
        qualities: &["green", "ripe", "muddy", "gentle", "hungry", "early"],
    },
    Theme {
        people: &["teacher", "student", "librarian", "writer", "printer"],
        things: &["book", "letter", "lesson", "pencil", "question", "story", "page"],
        places: &["school", "library", "classroom", "office", "city"],
        qualities: &["clever", "quiet", "difficult", "long", "careful", "modern"],
    },
    Theme {
        people: &["king", "queen", "soldier", "prince", "guard"],
        things: &["crown", "sword", "castle", "promise", "banner", "treaty", "gate"],
        places: &["palace", "tower", "court", "bridge", "kingdom"],
        qualities: &["golden", "brave", "proud", "ancient", "secret", "noble"],
    },
    Theme {
        people: &["hunter", "traveller", "woodcutter", "guide", "stranger"],
        things: &["tree", "bear", "path", "fire", "axe", "cabin", "wolf"],
        places: &["forest", "mountain", "valley", "cave", "clearing"],
        qualities: &["dark", "cold", "tall", "silent", "wild", "frozen"],
    },
];

const HEROES: [(&str, &str); 10] = [
    ("Anna", "she"),
    ("Thomas", "he"),
    ("Clara", "she"),
    ("Henry", "he"),
    ("Maria", "she"),
    ("Peter", "he"),
    ("Ruth", "she"),
    ("Samuel", "he"),
    ("Ella", "she"),
    ("Jacob", "he"),
];
const ACTIONS: [&str; 14] = [
    "found",
    "carried",
    "saw",
    "wanted",
    "lost",
    "bought",
    "remembered",
    "painted",
    "followed",
    "repaired",
    "described",
    "kept",
    "hid",
    "sold",
];
const MOVES: [&str; 6] = ["walked", "returned", "went", "hurried", "travelled", "came"];
const TIMES: [&str; 7] = [
    "in the morning",
    "after the war",
    "last winter",
    "on the third day",
    "at night",
    "many years later",
    "before sunrise",
];
const LINKS: [&str; 5] = ["and", "but", "because", "while", "so"];

/// Appends a paragraph of 3 to 8 sentences and an empty line.
pub(super) fn paragraph(draws: &mut Draws, out: &mut Vec<u8>) {
    let theme = &THEMES[draws.below(THEMES.len())];
    let (name, pronoun) = HEROES[draws.below(HEROES.len())];
    let sentences = 3 + draws.below(6);
    for index in 0..sentences {
        // The hero opens the paragraph by name and is a pronoun more often than not afterwards.
        let hero = match index {
            0 => Some(name),
            _ if draws.one_in(3) => None,
            _ if draws.one_in(3) => Some(name),
            _ => Some(pronoun),
        };
        let start = out.len();
        sentence(draws, theme, hero, out);
        out[start].make_ascii_uppercase();
        out.extend_from_slice(if index + 1 == sentences { b".\n\n" } else { b". " });
    }
}

fn sentence(draws: &mut Draws, theme: &Theme, subject: Option<&str>, out: &mut Vec<u8>) {
    if draws.one_in(4) {
        say(out, &[common(draws, &TIMES), ", "]);
    }
    clause(draws, theme, subject, out);
    if draws.one_in(3) {
        say(out, &[" ", common(draws, &LINKS), " "]);
        clause(draws, theme, None, out);
    }
}

fn clause(draws: &mut Draws, theme: &Theme, subject: Option<&str>, out: &mut Vec<u8>) {
    match subject {
        Some(hero) => say(out, &[hero]),
        None => noun_phrase(draws, theme, theme.people, out),
    }
    if draws.one_in(3) {
        say(out, &[" ", common(draws, &MOVES), " to the ", common(draws, theme.places)]);
        return;
    }
    say(out, &[" ", common(draws, &ACTIONS), " "]);
    noun_phrase(draws, theme, theme.things, out);
    if draws.one_in(3) {
        say(out, &[" near the ", common(draws, theme.places)]);
    }
}

fn noun_phrase(draws: &mut Draws, theme: &Theme, nouns: &[&str], out: &mut Vec<u8>) {
    let quality = if draws.one_in(2) { common(draws, theme.qualities) } else { "" };
    let noun = common(draws, nouns);
    let first = if quality.is_empty() { noun } else { quality };
    let article = match draws.one_in(2) {
        true => "the",
        false if first.starts_with(['a', 'e', 'i', 'o', 'u']) => "an",
        false => "a",
    };
    say(out, &[article, " ", quality, if quality.is_empty() { "" } else { " " }, noun]);
}

/// One of the words, the first ones more often, as in any language.
fn common<'a>(draws: &mut Draws, words: &[&'a str]) -> &'a str {
    let index = draws.below(words.len()).min(draws.below(words.len()));
    words[index]
}

fn say(out: &mut Vec<u8>, words: &[&str]) {
    for word in words {
        out.extend_from_slice(word.as_bytes());
    }
}
