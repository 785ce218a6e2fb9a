//! Drawing a token from logits.

use crate::config::GenerateConfig;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;
use std::collections::VecDeque;

/// Draws among the most likely tokens with the Gumbel-max trick, as the reference does: the token
/// with the largest `logit / temperature + noise` among those that are kept.
///
/// Kept are the `top_k` largest logits; of these, the fewest whose probabilities add up to `top_p`; of
/// these, the ones at least `min_p` times as likely as the likeliest. Before all that, tokens that stood in
/// the text lately are made less likely.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    penalty: f64,
    /// Tokens that the penalty looks back on.
    window: usize,
    recent: VecDeque<i64>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// `temperature` 0 takes the most likely token each time; the same `seed` gives the same draws
    /// on every machine.
    pub fn new(temperature: f64, top_k: usize, seed: u64) -> Self {
        Self {
            temperature,
            top_k: top_k.max(1),
            top_p: 1.0,
            min_p: 0.0,
            penalty: 1.0,
            window: 0,
            recent: VecDeque::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The sampler of a configuration, for a vocabulary of `num_tokens`.
    pub fn configured(config: &GenerateConfig, num_tokens: usize, seed: u64) -> Self {
        Self {
            top_p: config.top_p,
            min_p: config.min_p,
            penalty: config.repetition_penalty,
            window: config.repetition_window,
            ..Self::new(config.temperature, config.kept(num_tokens), seed)
        }
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

    /// Only the likeliest tokens that make up `top_p` of the probability (nucleus sampling, arXiv 1904.09751); 1
    /// is all of them.
    pub fn with_top_p(mut self, top_p: f64) -> Self {
        self.top_p = top_p;
        self
    }

    /// Only tokens at least `min_p` times as likely as the likeliest (arXiv 2407.01082); 0 is all of them.
    pub fn with_min_p(mut self, min_p: f64) -> Self {
        self.min_p = min_p;
        self
    }

    /// Divides the positive logits of the last `window` tokens by `penalty`, and multiplies the negative ones by it
    /// (CTRL, arXiv 1909.05858); 1 is no penalty.
    pub fn with_repetition_penalty(mut self, penalty: f64, window: usize) -> Self {
        (self.penalty, self.window) = (penalty, window);
        self
    }

    /// Takes notice of a token of the text, read or written.
    pub fn observe(&mut self, token: i64) {
        if self.window > 0 {
            self.recent.truncate(self.window - 1);
            self.recent.push_front(token);
        }
    }

    /// Takes notice of several tokens.
    pub(super) fn observe_all(&mut self, tokens: &[i64]) {
        for &token in tokens {
            self.observe(token);
        }
    }

    /// The tokens that were taken notice of, the oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = i64> + '_ {
        self.recent.iter().rev().copied()
    }

    /// The index of the token drawn; `None` if there are no logits or one is not a number.
    pub fn draw(&mut self, logits: &[f32]) -> Option<usize> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return None;
        }
        let logits = &self.penalised(logits);
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

    fn penalised<'l>(&self, logits: &'l [f32]) -> Cow<'l, [f32]> {
        if self.penalty == 1.0 || self.recent.is_empty() {
            return Cow::Borrowed(logits);
        }
        let mut penalised = logits.to_vec();
        // However often a token stands there, it counts once.
        for index in self.recent.iter().filter_map(|&token| usize::try_from(token).ok()) {
            if let (Some(now), Some(&before)) = (penalised.get_mut(index), logits.get(index)) {
                let penalty = self.penalty as f32;
                *now = if before > 0.0 { before / penalty } else { before * penalty };
            }
        }
        Cow::Owned(penalised)
    }

    /// The smallest logit that is kept.
    fn threshold(&self, logits: &[f32]) -> Option<f32> {
        let mut sorted = logits.to_vec();
        let k = self.top_k.min(sorted.len()).checked_sub(1)?;
        sorted.select_nth_unstable_by(k, |a, b| b.total_cmp(a));
        let mut threshold = sorted[k];
        if self.top_p < 1.0 {
            threshold = self.nucleus(&mut sorted[..=k]);
        }
        if self.min_p > 0.0 {
            let most = sorted[..=k].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // p >= min_p p_max, in logarithms.
            let least = f64::from(most) + self.temperature * self.min_p.ln();
            let kept = sorted[..=k].iter().copied().filter(|&logit| f64::from(logit) >= least);
            threshold = threshold.max(kept.fold(most, f32::min));
        }
        Some(threshold)
    }

    /// The smallest logit of the fewest that make up `top_p`.
    fn nucleus(&self, logits: &mut [f32]) -> f32 {
        logits.sort_unstable_by(|a, b| b.total_cmp(a));
        let most = f64::from(logits[0]);
        let weight = |logit: f32| ((f64::from(logit) - most) / self.temperature).exp();
        let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
        let mut so_far = 0.0;
        for &logit in logits.iter() {
            so_far += weight(logit);
            if so_far >= self.top_p * total {
                return logit;
            }
        }
        logits[logits.len() - 1]
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

    /// The tokens that can be drawn.
    fn drawn(sampler: &Sampler, logits: &[f32]) -> Vec<usize> {
        let mut sampler = sampler.clone();
        let mut seen = vec![false; logits.len()];
        (0..3000).for_each(|_| seen[sampler.draw(logits).unwrap()] = true);
        (0..logits.len()).filter(|&token| seen[token]).collect()
    }

    #[test]
    fn a_nucleus_is_the_fewest_tokens_that_make_up_the_share() {
        // Probabilities 0.5, 0.3, 0.15, 0.05.
        let logits = [0.15, 0.5, 0.05, 0.3].map(|p: f64| p.ln() as f32);
        let sampler = |top_p| Sampler::new(1.0, 4, 1).with_top_p(top_p);
        assert_eq!(drawn(&sampler(0.4), &logits), [1]);
        assert_eq!(drawn(&sampler(0.6), &logits), [1, 3]);
        assert_eq!(drawn(&sampler(0.9), &logits), [0, 1, 3]);
        assert_eq!(drawn(&sampler(1.0), &logits), [0, 1, 2, 3]);
        // Of the two that top-k keeps, the first alone has 0.625 of the probability.
        assert_eq!(drawn(&Sampler::new(1.0, 2, 1).with_top_p(0.6), &logits), [1]);
        // At a lower temperature the first one has more than 0.6.
        assert_eq!(drawn(&Sampler::new(0.5, 4, 1).with_top_p(0.6), &logits), [1]);
    }

    #[test]
    fn min_p_is_a_share_of_the_likeliest() {
        let logits = [0.15, 0.5, 0.05, 0.3].map(|p: f64| p.ln() as f32);
        let sampler = |min_p| Sampler::new(1.0, 4, 1).with_min_p(min_p);
        assert_eq!(drawn(&sampler(0.7), &logits), [1]);
        assert_eq!(drawn(&sampler(0.5), &logits), [1, 3]);
        assert_eq!(drawn(&sampler(0.2), &logits), [0, 1, 3]);
        assert_eq!(drawn(&Sampler::new(1.0, 2, 1).with_min_p(0.01), &logits), [1, 3]);
    }

    #[test]
    fn a_penalty_touches_what_stood_in_the_window_only() {
        let mut sampler = Sampler::greedy().with_repetition_penalty(2.0, 2);
        let logits = [3.0, 2.0, -1.0];
        assert_eq!(sampler.draw(&logits), Some(0));
        sampler.observe(0);
        assert_eq!(sampler.draw(&logits), Some(1), "1.5 against 2");
        sampler.observe(1);
        assert_eq!(sampler.draw(&logits), Some(0), "1.5 against 1");
        sampler.observe(2);
        assert_eq!(sampler.draw(&logits), Some(0), "the first one has left the window");
        sampler.observe(2);
        assert_eq!(sampler.penalised(&logits).as_ref(), [3.0, 2.0, -2.0], "once, and downwards");
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
