//! How fast a model decodes, and how fast this machine could read its weights.

use super::{BatchGenerator, GenerateError, Sampler};
use crate::model::Model;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Seconds of decoding steps, in the order of time.
///
/// `batch` texts go on greedily, `steps` steps each, after a context of `context` tokens, which is read
/// before the clock starts.
pub fn step_times(
    model: &Model,
    context: usize,
    batch: usize,
    steps: usize,
) -> Result<Vec<f64>, GenerateError> {
    let vocabulary = model.config().num_tokens as i64;
    let prompt: Vec<i64> = (0..context as i64).map(|t| (t * t + 7 * t) % vocabulary).collect();
    let samplers = vec![Sampler::greedy(); batch];
    let mut generator = BatchGenerator::from_one(model, &prompt, samplers)?;
    // The first step finds cold caches and sleeping threads.
    generator.next_tokens()?;
    (0..steps)
        .map(|_| {
            let started = Instant::now();
            generator.next_tokens()?;
            Ok(started.elapsed().as_secs_f64())
        })
        .collect()
}

/// The middle value; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Seconds to read so many bytes once, on as many threads as libtorch uses: the limit of a decoding
/// step that reads as many bytes of weights. What fits into the caches is read from there, as the
/// weights are. The best of `repetitions` passes.
pub fn read_time(bytes: usize, repetitions: usize) -> f64 {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    let memory: Vec<u64> = (0..bytes.div_ceil(8) as u64).collect();
    let share = memory.len().div_ceil(threads).max(1);
    let barrier = Barrier::new(memory.chunks(share).len());
    let times = thread::scope(|scope| {
        let readers: Vec<_> = memory
            .chunks(share)
            .map(|part| scope.spawn(|| read_passes(part, repetitions, &barrier)))
            .collect();
        readers.into_iter().filter_map(|reader| reader.join().ok()).collect::<Vec<_>>()
    });
    // A pass is over when its last reader is done.
    let pass = |n: usize| times.iter().filter_map(|t| t.get(n)).max().copied();
    let best = (0..repetitions).filter_map(pass).min();
    best.unwrap_or(Duration::ZERO).as_secs_f64()
}

fn read_passes(part: &[u64], repetitions: usize, barrier: &Barrier) -> Vec<Duration> {
    (0..repetitions)
        .map(|_| {
            barrier.wait();
            let started = Instant::now();
            black_box(read(part));
            started.elapsed()
        })
        .collect()
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
    use super::*;

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
    fn more_bytes_take_longer() {
        assert!(read_time(64 << 20, 3) > read_time(1 << 10, 3));
    }
}
