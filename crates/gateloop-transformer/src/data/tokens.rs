//! Token ids where they lie, whatever their width.

use super::synthetic::{Mark, Rule};

/// Token ids in a row, with what is known of them; a borrowed view, as cheap to copy as a slice.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    ids: Ids<'a>,
    /// Of a synthetic task.
    rule: Option<Rule>,
    /// Of the text that they are.
    bytes: usize,
    /// Where documents begin, in ascending order.
    documents: Option<&'a [usize]>,
}

/// As they are kept: a byte is its own id, where the file lies; subwords take four bytes each.
#[derive(Clone, Copy, Debug)]
enum Ids<'a> {
    Bytes(&'a [u8]),
    Subwords(&'a [u32]),
}

impl<'a> From<&'a [u8]> for Tokens<'a> {
    /// Each byte is a token.
    fn from(ids: &'a [u8]) -> Self {
        Self::of_task(ids, None)
    }
}

impl<'a> Tokens<'a> {
    /// Bytes of a synthetic task, if there is a rule.
    pub(super) fn of_task(ids: &'a [u8], rule: Option<Rule>) -> Self {
        Self { ids: Ids::Bytes(ids), rule, bytes: ids.len(), documents: None }
    }

    /// The subwords of a text of so many bytes.
    pub(super) fn subwords(ids: &'a [u32], bytes: usize) -> Self {
        Self { ids: Ids::Subwords(ids), rule: None, bytes, documents: None }
    }

    /// The same with the places where documents begin, in ascending order.
    pub(super) fn with_documents(self, documents: Option<&'a [usize]>) -> Self {
        Self { documents, ..self }
    }

    /// Whether it is known where documents begin.
    pub fn has_documents(&self) -> bool {
        self.documents.is_some()
    }

    /// Appends whether documents begin at `len` tokens from `start`.
    pub fn document_starts(&self, start: usize, len: usize, out: &mut Vec<bool>) {
        let first = out.len();
        out.resize(first + len, false);
        let documents = self.documents.unwrap_or_default();
        let next = documents.partition_point(|place| *place < start);
        for place in documents[next..].iter().take_while(|place| **place < start + len) {
            out[first + place - start] = true;
        }
    }

    /// What makes bits a byte of bits a token: the text's bytes, divided by its tokens.
    pub fn bytes_per_token(&self) -> f64 {
        if self.is_empty() { 1.0 } else { self.bytes as f64 / self.len() as f64 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.ids {
            Ids::Bytes(ids) => ids.len(),
            Ids::Subwords(ids) => ids.len(),
        }
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
        let range = start..start + len;
        match self.ids {
            Ids::Bytes(ids) => out.extend(ids[range].iter().copied().map(i64::from)),
            Ids::Subwords(ids) => out.extend(ids[range].iter().copied().map(i64::from)),
        }
    }

    /// What `len` tokens from `start` are in their task, for a reader that knows those from `known_from` to `start` as
    /// well; `None` where nothing is asked for.
    ///
    /// # Panics
    /// If there are not so many tokens.
    pub fn marks(&self, start: usize, len: usize, known_from: usize) -> Option<Vec<Mark>> {
        let (Some(rule), Ids::Bytes(bytes)) = (self.rule, self.ids) else { return None };
        Some(rule.marks(bytes, start, len, known_from).collect())
    }
}
