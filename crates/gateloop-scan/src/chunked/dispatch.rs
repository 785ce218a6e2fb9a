//! One generic body, compiled once for each instruction set, chosen at run time.
//!
//! The body is written in plain Rust over rows of channels and left to the vectoriser. Rust never
//! contracts `a * h + b` into a fused multiply-add, so every instruction set gives the same bits; but for products of
//! matrices ([`Vector`]), which are told to.

use crate::Complex;
use crate::gate_loop::vector::{PlainVector, Vector};

use super::line::{Line, Plain};

/// Work that wants the widest vectors of the machine. `run` must be `#[inline(always)]`, as must
/// all that it calls in its inner loops, or it is compiled for the baseline.
pub trait Kernel {
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
    /// A register for products of matrices.
    type Wide32: Vector<f32>;
    /// As before.
    type Wide64: Vector<f64>;

    /// Does work in a function of its own, compiled for this instruction set: what is called from many places need not be
    /// inlined into each.
    ///
    /// # Safety
    /// The machine has the instruction set; a running [`Kernel`] knows.
    unsafe fn call<K: Kernel>(kernel: K);
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
        #[cfg(target_arch = "x86_64")]
        let has_avx2 = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma");
        let sets = [
            #[cfg(target_arch = "x86_64")]
            (Set::Avx512, has_avx2 && std::arch::is_x86_feature_detected!("avx512f")),
            #[cfg(target_arch = "x86_64")]
            (Set::Avx2, has_avx2),
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
            // SAFETY: `available` found AVX-512F, AVX2 and FMA on this machine.
            Set::Avx512 => unsafe { x86::avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found AVX2 and FMA on this machine.
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
    type Wide32 = PlainVector<f32, 4>;
    type Wide64 = PlainVector<f64, 2>;

    unsafe fn call<K: Kernel>(kernel: K) {
        kernel.run::<Self>();
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::super::avx2::{Avx2, Avx512};
    use super::Kernel;

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(crate) fn avx512<K: Kernel>(kernel: K) {
        kernel.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn avx2<K: Kernel>(kernel: K) {
        kernel.run::<Avx2>();
    }
}
