//! Adding up losses.

use super::Evaluation;
use std::f64::consts::LN_2;

/// Losses so far, by window and by position.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The sum of the losses of a window in nats, and their number.
    windows: Vec<(f64, f64)>,
    /// The same of a place in the window.
    positions: Vec<(f64, f64)>,
    tokens: u64,
}

impl Tally {
    /// The losses of one window in nats, the first of which stands at `position`.
    pub(super) fn add(&mut self, losses: &[f32], position: usize) {
        let end = position + losses.len();
        if self.positions.len() < end {
            self.positions.resize(end, (0.0, 0.0));
        }
        let mut sum = 0.0;
        for (place, &loss) in self.positions[position..end].iter_mut().zip(losses) {
            let loss = f64::from(loss);
            sum += loss;
            *place = (place.0 + loss, place.1 + 1.0);
        }
        self.windows.push((sum, losses.len() as f64));
        self.tokens += losses.len() as u64;
    }

    /// Losses so far.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// All of it in bits.
    pub(super) fn finish(self, with_positions: bool) -> Evaluation {
        let count = self.tokens as f64;
        let mean = self.windows.iter().map(|(sum, _)| sum).sum::<f64>() / count;
        // The variance of a ratio of sums (Cochran, Sampling Techniques, 6.4), windows of unequal lengths included.
        let n = self.windows.len() as f64;
        let squares: f64 = self.windows.iter().map(|(s, n)| (s - mean * n).powi(2)).sum();
        let error = 1.96 * (n / (n - 1.0) * squares).sqrt() / count;
        let by_position = self.positions.iter().map(|(sum, count)| sum / count / LN_2);
        Evaluation {
            bpc: mean / LN_2,
            error: error / LN_2,
            tokens: self.tokens,
            by_position: if with_positions { by_position.collect() } else { Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use std::f64::consts::LN_2;

    #[test]
    fn means_are_over_tokens_and_the_error_over_windows() {
        let mut tally = Tally::default();
        tally.add(&[1.0, 2.0], 0);
        tally.add(&[3.0, 4.0], 0);
        tally.add(&[5.0], 0);
        assert_eq!(tally.tokens(), 5);
        let result = tally.finish(true);
        assert!((result.bpc - 3.0 / LN_2).abs() < 1e-12);
        // Deviations of the sums from 3 a token: -3, 1, 2.
        let error = 1.96 * (1.5 * 14.0_f64).sqrt() / 5.0 / LN_2;
        assert!((result.error - error).abs() < 1e-12);
        assert_eq!(result.by_position.len(), 2);
        assert!((result.by_position[1] - 3.0 / LN_2).abs() < 1e-12);
    }

    #[test]
    fn one_window_has_no_error_and_none_has_no_mean() {
        let mut tally = Tally::default();
        tally.add(&[1.0], 3);
        let result = tally.finish(false);
        assert!(result.error.is_nan() && result.by_position.is_empty());
        assert!(Tally::default().finish(false).bpc.is_nan());
    }
}
