//! Adding up losses.

use super::accuracy::AnswerTally;
use super::{Evaluation, Predictions};
use std::f64::consts::LN_2;

/// Losses so far, by window and by position.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The sum of the losses of a window in nats, and their number.
    windows: Vec<(f64, f64)>,
    /// The same of a place in the window.
    positions: Vec<(f64, f64)>,
    tokens: u64,
    answers: AnswerTally,
}

impl Tally {
    /// What follows is a window elsewhere.
    pub(super) fn begin(&mut self) {
        self.answers.begin();
    }

    /// The predictions of one window from the one at `position` on; of the losses, those that are to count.
    pub(super) fn add(
        &mut self,
        predictions: &Predictions<'_>,
        position: usize,
        counts: impl Fn(usize) -> bool,
    ) {
        let end = predictions.losses.len();
        if self.positions.len() < end {
            self.positions.resize(end, (0.0, 0.0));
        }
        let (mut sum, mut number) = (0.0, 0_u32);
        for place in (position..end).filter(|place| counts(*place)) {
            let loss = f64::from(predictions.losses[place]);
            sum += loss;
            number += 1;
            let total = &mut self.positions[place];
            *total = (total.0 + loss, total.1 + 1.0);
        }
        self.answers.add_all(predictions, position);
        // A window of which nothing counts says nothing about the spread.
        if number > 0 {
            self.windows.push((sum, f64::from(number)));
            self.tokens += u64::from(number);
        }
    }

    /// All of it in bits a byte.
    pub(super) fn finish(self, with_positions: bool, bytes_per_token: f64) -> Evaluation {
        let nats = LN_2 * bytes_per_token;
        let count = self.tokens as f64;
        let mean = self.windows.iter().map(|(sum, _)| sum).sum::<f64>() / count;
        // The variance of a ratio of sums (Cochran, Sampling Techniques, 6.4), windows of unequal lengths included.
        let n = self.windows.len() as f64;
        let squares: f64 = self.windows.iter().map(|(s, n)| (s - mean * n).powi(2)).sum();
        let error = 1.96 * (n / (n - 1.0) * squares).sqrt() / count;
        let by_position = self.positions.iter().map(|(sum, count)| sum / count / nats);
        Evaluation {
            bpc: mean / nats,
            error: error / nats,
            tokens: self.tokens,
            by_position: if with_positions { by_position.collect() } else { Vec::new() },
            answers: self.answers.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::evaluate::Predictions;
    use std::f64::consts::LN_2;

    fn losses(losses: &[f32]) -> Predictions<'_> {
        Predictions { losses, counts: None, answers: None }
    }

    #[test]
    fn means_are_over_tokens_and_the_error_over_windows() {
        let mut tally = Tally::default();
        for window in [&[1.0, 2.0][..], &[3.0, 4.0], &[5.0]] {
            tally.add(&losses(window), 0, |_| true);
        }
        let result = tally.finish(true, 1.0);
        assert_eq!(result.tokens, 5);
        assert!((result.bpc - 3.0 / LN_2).abs() < 1e-12);
        // Deviations of the sums from 3 a token: -3, 1, 2.
        let error = 1.96 * (1.5 * 14.0_f64).sqrt() / 5.0 / LN_2;
        assert!((result.error - error).abs() < 1e-12);
        assert_eq!(result.by_position.len(), 2);
        assert!((result.by_position[1] - 3.0 / LN_2).abs() < 1e-12);
        assert_eq!(result.answers, None);
    }

    #[test]
    fn bits_of_longer_tokens_are_spread_over_their_bytes() {
        let finish = |bytes| {
            let mut tally = Tally::default();
            tally.add(&losses(&[1.0, 2.0]), 0, |_| true);
            tally.add(&losses(&[3.0]), 0, |_| true);
            tally.finish(true, bytes)
        };
        let (one, four) = (finish(1.0), finish(4.0));
        assert!((one.bpc / 4.0 - four.bpc).abs() < 1e-12 && one.error / 4.0 == four.error);
        assert!((one.by_position[1] / 4.0 - four.by_position[1]).abs() < 1e-12);
        assert_eq!(one.tokens, four.tokens);
    }

    #[test]
    fn what_does_not_count_is_left_out_of_means_and_windows() {
        let mut tally = Tally::default();
        tally.add(&losses(&[9.0, 1.0, 9.0]), 0, |place| place == 1);
        tally.add(&losses(&[9.0, 9.0]), 0, |_| false);
        tally.add(&losses(&[9.0, 3.0]), 1, |_| true);
        let result = tally.finish(false, 1.0);
        assert_eq!(result.tokens, 2);
        assert!((result.bpc - 2.0 / LN_2).abs() < 1e-12);
        // Two windows of one: deviations -1 and 1.
        assert!((result.error - 1.96 * (2.0 * 2.0_f64).sqrt() / 2.0 / LN_2).abs() < 1e-12);
    }

    #[test]
    fn one_window_has_no_error_and_none_has_no_mean() {
        let mut tally = Tally::default();
        tally.add(&losses(&[0.0, 0.0, 0.0, 1.0]), 3, |_| true);
        let result = tally.finish(false, 1.0);
        assert!(result.error.is_nan() && result.by_position.is_empty());
        assert!(Tally::default().finish(false, 1.0).bpc.is_nan());
    }
}
