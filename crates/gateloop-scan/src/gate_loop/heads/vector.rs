//! Registers of real numbers that multiply and add, for matrix products.

use crate::chunked::dispatch::Isa;

/// Several real numbers in registers.
pub trait Vector<R>: Copy {
    /// How many.
    const LEN: usize;

    /// Zeros.
    ///
    /// # Safety
    /// The machine has the instruction set that this belongs to; so for all that follow.
    unsafe fn zero() -> Self;

    /// One number, everywhere.
    unsafe fn splat(x: R) -> Self;

    /// Reads them.
    ///
    /// # Safety
    /// `from` is valid for [`Self::LEN`] numbers.
    unsafe fn load(from: *const R) -> Self;

    /// Writes them.
    ///
    /// # Safety
    /// `to` is valid for [`Self::LEN`] numbers.
    unsafe fn store(self, to: *mut R);

    /// `self * b + c`, rounded once where the machine can.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Which [`Vector`] a number has.
pub trait InVectors: Copy {
    /// It, by instruction set.
    type Vector<I: Isa>: Vector<Self>;

    /// Writes the transpose of a square of four by four numbers; rows are so many numbers apart.
    ///
    /// # Safety
    /// Both squares are valid for all their numbers, and do not overlap.
    #[inline(always)]
    unsafe fn transpose_square(from: *const Self, cols: usize, to: *mut Self, stride: usize) {
        for r in 0..4 {
            for c in 0..4 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(c * stride + r) = *from.add(r * cols + c) };
            }
        }
    }
}

impl InVectors for f32 {
    type Vector<I: Isa> = I::Wide32;

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn transpose_square(from: *const Self, cols: usize, to: *mut Self, stride: usize) {
        use core::arch::x86_64::{
            _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps,
            _mm_unpacklo_ps,
        };
        // SAFETY: SSE is part of x86-64; the rest is the caller's promise.
        unsafe {
            let row = |r: usize| _mm_loadu_ps(from.add(r * cols));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
            _mm_storeu_ps(to, _mm_movelh_ps(ab_low, cd_low));
            _mm_storeu_ps(to.add(stride), _mm_movehl_ps(cd_low, ab_low));
            _mm_storeu_ps(to.add(2 * stride), _mm_movelh_ps(ab_high, cd_high));
            _mm_storeu_ps(to.add(3 * stride), _mm_movehl_ps(cd_high, ab_high));
        }
    }
}

impl InVectors for f64 {
    type Vector<I: Isa> = I::Wide64;
}

/// In plain Rust, left to the compiler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainVector<R, const N: usize>([R; N]);

macro_rules! plain {
    ($real:ident) => {
        impl<const N: usize> Vector<$real> for PlainVector<$real, N> {
            const LEN: usize = N;

            #[inline(always)]
            unsafe fn zero() -> Self {
                Self([0.0; N])
            }

            #[inline(always)]
            unsafe fn splat(x: $real) -> Self {
                Self([x; N])
            }

            #[inline(always)]
            unsafe fn load(from: *const $real) -> Self {
                // SAFETY: the caller's promise; an array asks for no more alignment than its elements.
                Self(unsafe { *from.cast() })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $real) {
                // SAFETY: the caller's promise.
                unsafe { *to.cast() = self.0 };
            }

            #[inline(always)]
            unsafe fn mul_add(mut self, b: Self, c: Self) -> Self {
                for i in 0..N {
                    // Not the standard library's `mul_add`: without the instruction it is a call.
                    self.0[i] = self.0[i] * b.0[i] + c.0[i];
                }
                self
            }
        }
    };
}

plain!(f32);
plain!(f64);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use core::arch::x86_64::{
        __m256, __m256d, __m512, __m512d, _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_loadu_pd,
        _mm256_loadu_ps, _mm256_set1_pd, _mm256_set1_ps, _mm256_setzero_pd, _mm256_setzero_ps,
        _mm256_storeu_pd, _mm256_storeu_ps, _mm512_fmadd_pd, _mm512_fmadd_ps, _mm512_loadu_pd,
        _mm512_loadu_ps, _mm512_set1_pd, _mm512_set1_ps, _mm512_setzero_pd, _mm512_setzero_ps,
        _mm512_storeu_pd, _mm512_storeu_ps,
    };

    macro_rules! register {
        ($register:ident, $real:ident,
         [$zero:ident, $splat:ident, $load:ident, $store:ident, $mul_add:ident]) => {
            impl Vector<$real> for $register {
                const LEN: usize = size_of::<Self>() / size_of::<$real>();

                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: the caller has the instruction set; so for all that follow.
                    unsafe { $zero() }
                }

                #[inline(always)]
                unsafe fn splat(x: $real) -> Self {
                    // SAFETY: as above.
                    unsafe { $splat(x) }
                }

                #[inline(always)]
                unsafe fn load(from: *const $real) -> Self {
                    // SAFETY: as above, and the caller's promise.
                    unsafe { $load(from) }
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut $real) {
                    // SAFETY: as above, and the caller's promise.
                    unsafe { $store(to, self) }
                }

                #[inline(always)]
                unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $mul_add(self, b, c) }
                }
            }
        };
    }

    register!(
        __m256,
        f32,
        [_mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps]
    );
    register!(
        __m256d,
        f64,
        [_mm256_setzero_pd, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd]
    );
    register!(
        __m512,
        f32,
        [_mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps]
    );
    register!(
        __m512d,
        f64,
        [_mm512_setzero_pd, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd]
    );
}
