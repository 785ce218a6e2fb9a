//! Token ids where they lie, whatever their width.

use super::synthetic::{Mark, Rule};

/// Token ids in a row, with what is known of them; a borrowed view, as cheap to copy as a slice.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    ids: &'a [u8],
    /// Of a synthetic task.
    rule: Option<Rule>,
    /// Where documents begin, in ascending order from the first of these tokens on.
    documents: Option<&'a [usize]>,
    /// What is to be taken from these places.
    offset: usize,
}

impl<'a> From<&'a [u8]> for Tokens<'a> {
    /// Each byte is a token.
    fn from(ids: &'a [u8]) -> Self {
        Self { ids, rule: None, documents: None, offset: 0 }
    }
}

impl<'a> Tokens<'a> {
    /// Bytes of a synthetic task, if there is a rule.
    pub(super) fn of_task(ids: &'a [u8], rule: Option<Rule>) -> Self {
        Self { ids, rule, documents: None, offset: 0 }
    }

    /// The same with the places where documents begin, in ascending order, of a text of which these tokens begin at
    /// `offset`.
    pub(super) fn with_documents(self, documents: Option<&'a [usize]>, offset: usize) -> Self {
        Self { documents, offset, ..self }
    }

    /// Whether it is known where documents begin.
    pub fn has_documents(&self) -> bool {
        self.documents.is_some()
    }

    /// Appends whether documents begin at `len` tokens from `start`.
    pub fn document_starts(&self, start: usize, len: usize, out: &mut Vec<bool>) {
        let (first, from) = (out.len(), start + self.offset);
        out.resize(first + len, false);
        let documents = self.documents.unwrap_or_default();
        let next = documents.partition_point(|place| *place < from);
        for place in documents[next..].iter().take_while(|place| **place < from + len) {
            out[first + place - from] = true;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some of them are answers.
    pub fn has_answers(&self) -> bool {
        self.rule.is_some()
    }

    /// Appends `len` ids from `start`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn copy_to(&self, start: usize, len: usize, out: &mut Vec<i64>) {
        out.extend(self.ids[start..start + len].iter().copied().map(i64::from));
    }

    /// What `len` tokens from `start` are in their task, for a reader that knows those from `known_from` to `start` as
    /// well; `None` where nothing is asked for.
    ///
    /// # Panics
    /// If there are not so many tokens.
    pub fn marks(&self, start: usize, len: usize, known_from: usize) -> Option<Vec<Mark>> {
        self.rule.map(|rule| rule.marks(self.ids, start, len, known_from).collect())
    }
}
