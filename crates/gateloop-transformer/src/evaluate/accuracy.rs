//! How many answers of a synthetic task are right.

use super::Predictions;
use crate::data::Mark;

/// Right answers of a synthetic task. A prediction is right if the token that came was the likeliest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accuracy {
    /// Tokens of answers that were predicted.
    pub tokens: u64,
    /// The right ones among them.
    pub right_tokens: u64,
    /// Lines of which all answers were predicted, to their end.
    pub lines: u64,
    /// Those of which all were right.
    pub right_lines: u64,
}

impl Accuracy {
    /// The share of right tokens; not a number where there was none to predict.
    pub fn of_tokens(&self) -> f64 {
        self.right_tokens as f64 / self.tokens as f64
    }

    /// The share of lines whose answers are all right; not a number where there was no whole line.
    pub fn of_lines(&self) -> f64 {
        self.right_lines as f64 / self.lines as f64
    }
}

/// Answers so far, in the order of the text.
#[derive(Debug, Default)]
pub(super) struct AnswerTally {
    /// `None` until there is a task.
    total: Option<Accuracy>,
    line: Line,
}

/// What is known of the line so far.
#[derive(Debug, Default)]
struct Line {
    answers: u64,
    right: u64,
    /// Whether an answer could not be known.
    is_broken: bool,
}

impl AnswerTally {
    /// Forgets the line that has begun: what follows does not go on with it.
    pub(super) fn begin(&mut self) {
        self.line = Line::default();
    }

    /// The predictions of a window, from the one at `position` on.
    pub(super) fn add_all(&mut self, predictions: &Predictions<'_>, position: usize) {
        let Some((marks, right)) = predictions.answers else { return };
        for (mark, right) in marks[position..].iter().zip(&right[position..]) {
            self.add(*mark, *right);
        }
    }

    fn add(&mut self, mark: Mark, is_right: bool) {
        let total = self.total.get_or_insert_default();
        match mark {
            Mark::Other => {}
            Mark::Unknown => self.line.is_broken = true,
            Mark::Answer => {
                total.tokens += 1;
                total.right_tokens += u64::from(is_right);
                self.line.answers += 1;
                self.line.right += u64::from(is_right);
            }
            Mark::End => {
                let line = std::mem::take(&mut self.line);
                if line.answers > 0 && !line.is_broken {
                    total.lines += 1;
                    total.right_lines += u64::from(line.answers == line.right);
                }
            }
        }
    }

    pub(super) fn finish(self) -> Option<Accuracy> {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::{Accuracy, AnswerTally};
    use crate::data::Mark::{self, Answer, End, Other, Unknown};
    use crate::evaluate::Predictions;

    fn counted(windows: &[(&[Mark], &[bool])]) -> Accuracy {
        let mut tally = AnswerTally::default();
        for (marks, right) in windows {
            tally.add_all(
                &Predictions { losses: &[], counts: None, answers: Some((marks, right)) },
                0,
            );
        }
        tally.finish().unwrap()
    }

    #[test]
    fn a_line_is_right_if_all_of_its_answers_are() {
        let marks = [Other, Answer, Answer, End, Answer, End, Other, End];
        let right = [false, true, false, false, true, false, false, false];
        let accuracy = counted(&[(&marks, &right)]);
        let expected = Accuracy { tokens: 3, right_tokens: 2, lines: 2, right_lines: 1 };
        assert_eq!(accuracy, expected);
        assert_eq!((accuracy.of_tokens(), accuracy.of_lines()), (2.0 / 3.0, 0.5));
    }

    #[test]
    fn a_line_goes_on_in_the_next_window_unless_an_answer_is_unknown_there() {
        let (first, whole): (&[Mark], &[Mark]) = (&[Answer], &[Answer, End]);
        let accuracy = counted(&[(first, &[true]), (whole, &[true, true])]);
        assert_eq!((accuracy.tokens, accuracy.lines, accuracy.right_lines), (2, 1, 1));
        let accuracy = counted(&[(first, &[true]), (&[Unknown, End], &[true, true])]);
        assert_eq!((accuracy.tokens, accuracy.lines), (1, 0));
        // A line without its end is not whole.
        assert_eq!(counted(&[(first, &[true])]).lines, 0);
        assert!(counted(&[(first, &[true])]).of_lines().is_nan());
    }

    #[test]
    fn a_window_elsewhere_does_not_go_on_with_a_line() {
        let mut tally = AnswerTally::default();
        for _ in 0..2 {
            tally.begin();
            // The last one's line is cut off, and is not that of the next window.
            let answers = Some((&[Answer, End, Answer][..], &[true, false, false][..]));
            tally.add_all(&Predictions { losses: &[], counts: None, answers }, 0);
        }
        let accuracy = tally.finish().unwrap();
        assert_eq!((accuracy.tokens, accuracy.lines, accuracy.right_lines), (4, 2, 2));
    }
}
