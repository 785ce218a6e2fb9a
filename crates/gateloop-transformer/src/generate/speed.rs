//! How fast a model decodes, and how fast this machine could read its weights.

use super::{BatchGenerator, GenerateError, Sampler};
use crate::model::Model;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// A decoding step beside the reading of as many bytes as it has weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Seconds of a step, the median.
    pub step_s: f64,
    /// Seconds of a reading, the median: the limit of a step of one text.
    pub read_s: f64,
}

impl Speed {
    /// The share of the limit that is reached.
    pub fn share(&self) -> f64 {
        self.read_s / self.step_s
    }
}

/// Steps and readings that take turns: on a machine that does other work as well, what slows one down
/// slows down the other.
const TURN: usize = 10;

/// Measures `turns` turns of ten steps and ten readings each.
///
/// `batch` texts go on greedily after a context of `context` tokens, which is read before the clock
/// starts.
pub fn measure(
    model: &Model,
    context: usize,
    batch: usize,
    turns: usize,
) -> Result<Speed, GenerateError> {
    let reader = Reader::new(model.bytes_per_step());
    let vocabulary = model.config().num_tokens as i64;
    let prompt: Vec<i64> = (0..context as i64).map(|t| (t * t + 7 * t) % vocabulary).collect();
    let samplers = vec![Sampler::greedy(); batch];
    let mut generator = BatchGenerator::from_one(model, &prompt, samplers)?;
    let (mut steps, mut readings) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        readings.extend((0..TURN).map(|_| reader.pass()));
        // The first step finds cold caches and sleeping threads.
        generator.next_tokens()?;
        for _ in 0..TURN {
            let started = Instant::now();
            generator.next_tokens()?;
            steps.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(Speed { step_s: median(&steps), read_s: median(&readings) })
}

/// The middle value; 0 of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Memory to be read on as many threads as libtorch uses. What fits into the caches is read from there,
/// as the weights are.
struct Reader {
    memory: Vec<u64>,
    threads: usize,
}

impl Reader {
    fn new(bytes: usize) -> Self {
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
        Self { memory: (0..bytes.div_ceil(8) as u64).collect(), threads }
    }

    /// Seconds to read everything once, from the moment when all threads are there.
    fn pass(&self) -> f64 {
        let parts: Vec<&[u64]> =
            self.memory.chunks(self.memory.len().div_ceil(self.threads).max(1)).collect();
        let barrier = Barrier::new(parts.len());
        let read_part = |part: &[u64]| {
            barrier.wait();
            let started = Instant::now();
            black_box(read(part));
            started.elapsed().as_secs_f64()
        };
        thread::scope(|scope| {
            let readers: Vec<_> =
                parts.iter().map(|part| scope.spawn(|| read_part(part))).collect();
            // The pass is over when its last reader is done.
            readers.into_iter().filter_map(|reader| reader.join().ok()).fold(0.0, f64::max)
        })
    }
}

/// Touches every word with as little arithmetic as the compiler lets through.
fn read(words: &[u64]) -> u64 {
    let (lines, rest) = words.as_chunks::<32>();
    let mut sums = [0_u64; 32];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum ^= word;
        }
    }
    sums.iter().chain(rest).fold(0, |sum, word| sum ^ word)
}

#[cfg(test)]
mod tests {
    // A test ends by panicking.
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::ModelConfig;
    use tch::Device;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1000).map(|n| n * n).collect();
        assert_eq!(read(&words), words.iter().fold(0, |sum, word| sum ^ word));
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn steps_and_readings_take_time() {
        let config = ModelConfig { dim: 16, depth: 1, ..ModelConfig::default() };
        let model = Model::seeded(&config, Device::Cpu, 1).unwrap();
        let speed = measure(&model, 3, 2, 1).unwrap();
        assert!(speed.step_s > 0.0 && speed.read_s > 0.0 && speed.share() > 0.0, "{speed:?}");
    }
}
