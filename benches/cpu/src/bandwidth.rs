//! How fast memory moves on all threads: the limits of the scan and of decoding.

use crate::error::{Problem, Result};
use crate::lines::{self, Line, Stream};
use crate::work::Work;
use rayon::prelude::*;
use std::hint::black_box;

/// What a pass does with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// One array read, one written.
    Copy,
    /// Two read, one written: the scan.
    Triad,
    /// Three read, two written: its adjoint.
    Adjoint,
    /// One read: the weights in decoding.
    Read,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stores {
    Ordinary,
    NonTemporal,
}

/// Passes over arrays of f32.
pub(crate) struct Bandwidth {
    accesses: Vec<Access>,
    stores: Stores,
    sources: Vec<Vec<Line>>,
    targets: Vec<Vec<Line>>,
    /// Passes over arrays that stand for longer ones.
    rounds: usize,
}

/// Numbers in an array; far more than a cache holds, and longer arrays take just as much longer.
const LONGEST: usize = 1 << 25;

/// Below this many lines, waking threads costs more than they save.
const SERIAL: usize = 1 << 12;

impl Bandwidth {
    pub(crate) fn new(accesses: &[Access], stores: Stores, elements: usize) -> Result<Self> {
        if stores == Stores::NonTemporal && !has_non_temporal() {
            let why = "non-temporal stores are measured with AVX, which this machine lacks";
            return Err(Problem::Unavailable(why.to_owned()));
        }
        let rounds = elements.div_ceil(LONGEST);
        let lines = elements.div_ceil(rounds).div_ceil(16);
        let arrays = |count: fn(&Access) -> usize| {
            let count = accesses.iter().map(count).max().unwrap_or(0);
            vec![vec![Line::ONES; lines]; count]
        };
        let sources = arrays(|access| match access {
            Access::Copy | Access::Read => 1,
            Access::Triad => 2,
            Access::Adjoint => 3,
        });
        let targets = arrays(|access| match access {
            Access::Read => 0,
            Access::Copy | Access::Triad => 1,
            Access::Adjoint => 2,
        });
        Ok(Self { accesses: accesses.to_vec(), stores, sources, targets, rounds })
    }

    fn pass<S: Stream>(&mut self, reads: usize, writes: usize) {
        let stores = self.stores;
        let len = self.sources[0].len();
        let part = part(len);
        let sources = &self.sources[..reads];
        let mut parts: Vec<Vec<&mut [Line]>> = Vec::new();
        for target in &mut self.targets[..writes] {
            for (index, piece) in target.chunks_mut(part).enumerate() {
                if parts.len() <= index {
                    parts.push(Vec::with_capacity(writes));
                }
                parts[index].push(piece);
            }
        }
        let one = |(index, targets): (usize, &mut Vec<&mut [Line]>)| {
            let begin = index * part;
            let pieces: Vec<&[Line]> =
                sources.iter().map(|s| &s[begin..begin + targets[0].len()]).collect();
            stream::<S>(stores, &pieces, targets);
        };
        if parts.len() == 1 {
            parts.iter_mut().enumerate().for_each(one);
        } else {
            parts.par_iter_mut().enumerate().for_each(one);
        }
    }

    fn read(&self) {
        let lines = &self.sources[0];
        let sum: f32 = lines.par_chunks(part(lines.len())).map(sum).sum();
        black_box(sum);
    }
}

impl Work for Bandwidth {
    fn run(&mut self) -> Result<()> {
        for _ in 0..self.rounds {
            for access in self.accesses.clone() {
                match access {
                    Access::Copy => self.pass::<lines::Copy>(1, 1),
                    Access::Triad => self.pass::<lines::Triad>(2, 1),
                    Access::Adjoint => self.pass::<lines::Adjoint>(3, 2),
                    Access::Read => self.read(),
                }
            }
        }
        black_box(&mut self.targets);
        Ok(())
    }
}

fn part(lines: usize) -> usize {
    if lines < SERIAL { lines } else { lines.div_ceil(rayon::current_num_threads()) }
}

fn has_non_temporal() -> bool {
    #[cfg(target_arch = "x86_64")]
    return lines::avx::is_available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn stream<S: Stream>(stores: Stores, sources: &[&[Line]], targets: &mut [&mut [Line]]) {
    #[cfg(target_arch = "x86_64")]
    if lines::avx::is_available() {
        // SAFETY: AVX is there.
        return unsafe {
            match stores {
                Stores::Ordinary => lines::avx::ordinary::<S>(sources, targets),
                Stores::NonTemporal => lines::avx::non_temporal::<S>(sources, targets),
            }
        };
    }
    let _ = stores;
    S::pass::<lines::Ordinary>(sources, targets);
}

fn sum(piece: &[Line]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if lines::avx::is_available() {
        // SAFETY: AVX is there.
        return unsafe { lines::avx::sum(piece) };
    }
    lines::sum(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_access_runs_on_any_length() {
        for elements in [1, 16, 17, 16 * SERIAL + 5] {
            for access in [Access::Copy, Access::Triad, Access::Adjoint, Access::Read] {
                Bandwidth::new(&[access], Stores::Ordinary, elements).unwrap().run().unwrap();
            }
        }
    }

    #[test]
    fn long_arrays_are_stood_for_by_shorter_ones() {
        let long = Bandwidth::new(&[Access::Read], Stores::Ordinary, LONGEST + 1).unwrap();
        assert_eq!(long.rounds, 2);
        assert!(long.sources[0].len() * 16 * 2 > LONGEST);
    }
}
