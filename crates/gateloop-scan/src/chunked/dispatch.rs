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

    /// Writes a cache line past the caches, if there is a way.
    ///
    /// # Safety
    /// Both pointers are valid for [`LINE`] bytes, `target` is aligned to that. The machine has the
    /// instruction set, which [`Level::dispatch`] sees to.
    unsafe fn stream_line(target: *mut u8, line: *const u8);
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

    #[inline(always)]
    unsafe fn stream_line(target: *mut u8, line: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { core::ptr::copy_nonoverlapping(line, target, LINE) }
    }
}

// The casts are to wider types; the trait's contract is that the pointers are aligned for them.
#[allow(clippy::cast_ptr_alignment)]
#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        __m256i, __m512i, _mm256_loadu_si256, _mm256_stream_si256, _mm512_loadu_si512,
        _mm512_stream_si512,
    };

    use super::super::avx2;
    use super::{Isa, Kernel};

    struct Avx512;

    // Where lines matter, memory is what takes the time, and two halves of a line are as fast as one.
    impl Isa for Avx512 {
        type F32 = avx2::F32;
        type F64 = avx2::F64;
        type C32 = avx2::C32;
        type C64 = avx2::C64;

        #[inline(always)]
        unsafe fn stream_line(target: *mut u8, line: *const u8) {
            // SAFETY: the caller's promise.
            unsafe {
                let value = _mm512_loadu_si512(line.cast::<__m512i>());
                _mm512_stream_si512(target.cast::<__m512i>(), value);
            }
        }
    }

    struct Avx2;

    impl Isa for Avx2 {
        type F32 = avx2::F32;
        type F64 = avx2::F64;
        type C32 = avx2::C32;
        type C64 = avx2::C64;

        #[inline(always)]
        unsafe fn stream_line(target: *mut u8, line: *const u8) {
            let (line, target) = (line.cast::<__m256i>(), target.cast::<__m256i>());
            // SAFETY: the caller's promise.
            unsafe {
                let (low, high) = (_mm256_loadu_si256(line), _mm256_loadu_si256(line.add(1)));
                _mm256_stream_si256(target, low);
                _mm256_stream_si256(target.add(1), high);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(crate) fn avx512<K: Kernel>(kernel: K) {
        kernel.run::<Avx512>();
    }

    #[target_feature(enable = "avx2")]
    pub(crate) fn avx2<K: Kernel>(kernel: K) {
        kernel.run::<Avx2>();
    }
}
