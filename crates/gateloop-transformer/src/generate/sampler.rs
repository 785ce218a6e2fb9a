//! Drawing a token from logits.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws among the most likely tokens with the Gumbel-max trick, as the reference does: the token
/// with the largest `logit / temperature + noise` among the `top_k` largest logits.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// `temperature` 0 takes the most likely token each time; the same `seed` gives the same draws
    /// on every machine.
    pub fn new(temperature: f64, top_k: usize, seed: u64) -> Self {
        Self { temperature, top_k: top_k.max(1), rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self::new(0.0, 1, 0)
    }

    /// The same with draws of its own: each number gives an independent stream of the same seed, and 0
    /// the one of [`new`](Self::new).
    pub fn with_stream(mut self, stream: u64) -> Self {
        self.rng.set_stream(stream);
        self
    }

    /// The index of the token drawn; `None` if there are no logits or one is not a number.
    pub fn draw(&mut self, logits: &[f32]) -> Option<usize> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return None;
        }
        if self.temperature == 0.0 {
            return argmax(logits.iter().map(|&logit| f64::from(logit)));
        }
        let threshold = self.threshold(logits)?;
        let (temperature, rng) = (self.temperature, &mut self.rng);
        argmax(logits.iter().map(|&logit| {
            // One draw a token whether kept or not, so that draws stay in step with positions.
            let uniform: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
            let gumbel = -(-uniform.ln()).ln();
            if logit < threshold {
                f64::NEG_INFINITY
            } else {
                f64::from(logit) / temperature + gumbel
            }
        }))
    }

    /// The `top_k`-th largest logit.
    fn threshold(&self, logits: &[f32]) -> Option<f32> {
        let mut sorted = logits.to_vec();
        let k = self.top_k.min(sorted.len()).checked_sub(1)?;
        sorted.select_nth_unstable_by(k, |a, b| b.total_cmp(a));
        Some(sorted[k])
    }
}

/// The first index of the largest value.
fn argmax(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in values.enumerate() {
        if best.is_none_or(|(_, top)| value > top) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampler::greedy().draw(&[0.0, 3.0, 3.0, -1.0]), Some(1));
    }

    #[test]
    fn only_the_top_k_are_drawn_and_all_of_them_are() {
        let logits = [1.0, 0.9, 0.8, 0.7, 5.0, 4.9];
        let mut sampler = Sampler::new(10.0, 3, 7);
        let mut seen = [0; 6];
        (0..1000).for_each(|_| seen[sampler.draw(&logits).unwrap()] += 1);
        assert!(seen[4] > 0 && seen[5] > 0 && seen[0] > 0, "{seen:?}");
        assert_eq!(seen[1] + seen[2] + seen[3], 0, "{seen:?}");
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0_f32, 1.0];
        let mut sampler = Sampler::new(1.0, 2, 3);
        let draws = 20_000;
        let ones = (0..draws).filter(|_| sampler.draw(&logits) == Some(1)).count() as f64;
        let expected = 1.0 / (1.0 + (-1.0_f64).exp());
        let sigma = (expected * (1.0 - expected) / f64::from(draws)).sqrt();
        assert!((ones / f64::from(draws) - expected).abs() < 5.0 * sigma);
    }

    #[test]
    fn a_seed_fixes_the_draws() {
        let draw = |seed| {
            let mut sampler = Sampler::new(1.0, 50, seed);
            (0..20).map(|_| sampler.draw(&[0.0; 50])).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn streams_of_a_seed_differ_and_the_first_is_the_plain_one() {
        let draw = |sampler: Sampler| {
            let mut sampler = sampler;
            (0..20).map(|_| sampler.draw(&[0.0; 50])).collect::<Vec<_>>()
        };
        let plain = Sampler::new(1.0, 50, 9);
        assert_eq!(draw(plain.clone().with_stream(0)), draw(plain.clone()));
        assert_eq!(draw(plain.clone().with_stream(3)), draw(plain.clone().with_stream(3)));
        assert_ne!(draw(plain.clone().with_stream(1)), draw(plain.with_stream(2)));
    }

    #[test]
    fn nothing_is_drawn_from_nothing_or_from_nan() {
        assert_eq!(Sampler::new(1.0, 5, 0).draw(&[]), None);
        assert_eq!(Sampler::greedy().draw(&[]), None);
        assert_eq!(Sampler::greedy().draw(&[0.0, f32::NAN]), None);
    }
}
