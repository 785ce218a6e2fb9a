//! Which bytes of a task's lines are answers.

use crate::config::Synthetic;

/// What a token is in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mark {
    /// Nothing that is asked for.
    #[default]
    Other,
    /// An answer: it follows from what stands before it in its line.
    Answer,
    /// An answer that cannot be known, because its line began before all that can be read.
    Unknown,
    /// The end of a line.
    End,
}

/// Where answers stand in the lines of a task: behind a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) struct Rule {
    marker: u8,
    /// The marker's occurrence in the line from which on it asks.
    asks_from: usize,
    asked: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Everything to the end of the line.
    Rest,
    /// The byte behind the marker.
    Next,
    /// Every second byte behind the marker: the values, not the keys.
    Values,
}

impl Rule {
    /// `None` for text.
    pub(in crate::data) fn of(kind: Synthetic) -> Option<Self> {
        let (marker, asks_from, asked) = match kind {
            Synthetic::Text => return None,
            Synthetic::Copy { .. } | Synthetic::SelectiveCopy { .. } => (b'|', 1, Asked::Rest),
            Synthetic::Recall { .. } => (b'?', 1, Asked::Values),
            Synthetic::InductionHeads { .. } => (b'!', 2, Asked::Next),
            Synthetic::MemoryHorizon { .. } => (b'=', 1, Asked::Next),
        };
        Some(Self { marker, asks_from, asked })
    }

    /// The marks of `len` bytes from `start`, for a reader that knows the bytes from `known_from` to `start` as well.
    pub(in crate::data) fn marks(
        self,
        bytes: &[u8],
        start: usize,
        len: usize,
        known_from: usize,
    ) -> impl Iterator<Item = Mark> + '_ {
        let before = bytes[..start].iter().rposition(|byte| *byte == b'\n');
        let line_start = before.map_or(0, |place| place + 1);
        let mut line =
            Line { rule: self, markers: 0, since: 0, is_known: line_start >= known_from };
        for byte in &bytes[line_start..start] {
            line.next(*byte);
        }
        bytes[start..start + len].iter().map(move |byte| line.next(*byte))
    }
}

/// A line as it is read: each byte is marked from what stands before it, and from nothing else.
struct Line {
    rule: Rule,
    /// Markers so far.
    markers: usize,
    /// Bytes since the last one.
    since: usize,
    is_known: bool,
}

impl Line {
    fn next(&mut self, byte: u8) -> Mark {
        if byte == b'\n' {
            *self = Self { rule: self.rule, markers: 0, since: 0, is_known: true };
            return Mark::End;
        }
        let is_asked = self.markers >= self.rule.asks_from
            && match self.rule.asked {
                Asked::Rest => true,
                Asked::Next => self.since == 0,
                Asked::Values => self.since % 2 == 1,
            };
        if byte == self.rule.marker {
            (self.markers, self.since) = (self.markers + 1, 0);
        } else {
            self.since += 1;
        }
        match (is_asked, self.is_known) {
            (false, _) => Mark::Other,
            (true, true) => Mark::Answer,
            (true, false) => Mark::Unknown,
        }
    }
}
