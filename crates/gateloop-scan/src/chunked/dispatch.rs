//! One generic body, compiled once for each instruction set, chosen at run time.
//!
//! The body is written in plain Rust over rows of channels and left to the vectoriser. Rust never
//! contracts `a * h + b` into a fused multiply-add, so every instruction set gives the same bits.

use crate::Complex;

use super::line::{Line, Plain};

/// Work that wants the widest vectors of the machine. `run` must be `#[inline(always)]`, as must
/// all that it calls in its inner loops, or it is compiled for the baseline.
pub(crate) trait Kernel {
    /// Does the work.
    fn run<I: Isa>(self);
}

/// What plain Rust cannot say.
pub trait Isa: Sized {
    /// A cache line of each kind of number.
    type F32: Line<f32>;
    /// As before.
    type F64: Line<f64>;
    /// As before.
    type C32: Line<Complex<f32>>;
    /// As before.
    type C64: Line<Complex<f64>>;
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// An instruction set that this machine has: only [`Level::available`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    // Elsewhere the baseline is the best there is to choose: NEON is part of it on aarch64.
    Baseline,
}

impl Level {
    /// The instruction sets of this machine, the best one first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        let sets = [
            #[cfg(target_arch = "x86_64")]
            (Set::Avx512, std::arch::is_x86_feature_detected!("avx512f")),
            #[cfg(target_arch = "x86_64")]
            (Set::Avx2, std::arch::is_x86_feature_detected!("avx2")),
            (Set::Baseline, true),
        ];
        sets.into_iter().filter(|&(_, is_there)| is_there).map(|(set, _)| Self(set))
    }

    /// The best instruction set of this machine.
    pub(crate) fn best() -> Self {
        Self::available().next().unwrap_or(Self(Set::Baseline))
    }

    /// Runs `kernel` with this instruction set.
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found AVX-512F on this machine.
            Set::Avx512 => unsafe { x86::avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found AVX2 on this machine.
            Set::Avx2 => unsafe { x86::avx2(kernel) },
            Set::Baseline => kernel.run::<Baseline>(),
        }
    }
}

/// Whatever the compiler may assume.
pub(crate) struct Baseline;

impl Isa for Baseline {
    type F32 = Plain<f32, 16>;
    type F64 = Plain<f64, 8>;
    type C32 = Plain<Complex<f32>, 8>;
    type C64 = Plain<Complex<f64>, 4>;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::avx2::Avx2;
    use super::Kernel;

    // What is written by lines waits for memory, and two halves of a line are as fast as one.
    #[target_feature(enable = "avx512f")]
    pub(crate) fn avx512<K: Kernel>(kernel: K) {
        kernel.run::<Avx2>();
    }

    #[target_feature(enable = "avx2")]
    pub(crate) fn avx2<K: Kernel>(kernel: K) {
        kernel.run::<Avx2>();
    }
}
