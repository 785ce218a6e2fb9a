//! Cache lines in the registers of AVX2.

use core::arch::x86_64::{
    __m256, __m256d, __m512, __m512d, _mm256_add_pd, _mm256_add_ps, _mm256_addsub_pd,
    _mm256_addsub_ps, _mm256_castsi256_ps, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_movedup_pd,
    _mm256_movehdup_ps, _mm256_moveldup_ps, _mm256_mul_pd, _mm256_mul_ps, _mm256_permute_pd,
    _mm256_permute_ps, _mm256_set1_epi64x, _mm256_setr_pd, _mm256_storeu_pd, _mm256_storeu_ps,
    _mm256_stream_pd, _mm256_stream_ps, _mm256_xor_pd, _mm256_xor_ps,
};

use crate::Complex;

use super::dispatch::{Isa, Kernel, x86};
use super::line::Line;

/// Two registers a line.
pub(super) struct Avx2;

/// Whole registers for products of matrices. What is written by lines waits for memory, and two halves of a line are as
/// fast as one.
pub(super) struct Avx512;

macro_rules! isa {
    ($name:ident, $function:ident, $wide32:ident, $wide64:ident) => {
        impl Isa for $name {
            type F32 = F32;
            type F64 = F64;
            type C32 = C32;
            type C64 = C64;
            type Wide32 = $wide32;
            type Wide64 = $wide64;

            unsafe fn call<K: Kernel>(kernel: K) {
                // SAFETY: the caller's promise.
                unsafe { x86::$function(kernel) }
            }
        }
    };
}

isa!(Avx2, avx2, __m256, __m256d);
isa!(Avx512, avx512, __m512, __m512d);

/// Implements [`Line`] for two registers, given how one is multiplied and conjugated.
macro_rules! line {
    ($name:ident, $element:ty, $float:ty, $register:ty,
     [$load:ident, $store:ident, $stream:ident, $add:ident], $mul:expr, $conj:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name($register, $register);

        impl Line<$element> for $name {
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                let from: *const $float = from.cast();
                // SAFETY: the caller's promise.
                unsafe { Self($load(from), $load(from.add(32 / size_of::<$float>()))) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                let to: *mut $float = to.cast();
                // SAFETY: the caller's promise.
                unsafe {
                    $store(to, self.0);
                    $store(to.add(32 / size_of::<$float>()), self.1);
                }
            }

            #[inline(always)]
            unsafe fn stream(self, to: *mut $element) {
                let to: *mut $float = to.cast();
                // SAFETY: the caller's promise.
                unsafe {
                    $stream(to, self.0);
                    $stream(to.add(32 / size_of::<$float>()), self.1);
                }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { Self($add(self.0, other.0), $add(self.1, other.1)) }
            }

            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { Self($mul(self.0, other.0), $mul(self.1, other.1)) }
            }

            #[inline(always)]
            unsafe fn conj(self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { Self($conj(self.0), $conj(self.1)) }
            }
        }
    };
}

line!(
    F32,
    f32,
    f32,
    __m256,
    [_mm256_loadu_ps, _mm256_storeu_ps, _mm256_stream_ps, _mm256_add_ps],
    _mm256_mul_ps,
    same_f32
);
line!(
    F64,
    f64,
    f64,
    __m256d,
    [_mm256_loadu_pd, _mm256_storeu_pd, _mm256_stream_pd, _mm256_add_pd],
    _mm256_mul_pd,
    same_f64
);
line!(
    C32,
    Complex<f32>,
    f32,
    __m256,
    [_mm256_loadu_ps, _mm256_storeu_ps, _mm256_stream_ps, _mm256_add_ps],
    mul_c32,
    conj_c32
);
line!(
    C64,
    Complex<f64>,
    f64,
    __m256d,
    [_mm256_loadu_pd, _mm256_storeu_pd, _mm256_stream_pd, _mm256_add_pd],
    mul_c64,
    conj_c64
);

/// `(x.re y.re - x.im y.im, x.re y.im + x.im y.re)`, each product and sum rounded, as plain Rust does.
#[inline(always)]
unsafe fn mul_c32(x: __m256, y: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let by_re = _mm256_mul_ps(_mm256_moveldup_ps(x), y);
        let swapped = _mm256_permute_ps::<0b10_11_00_01>(y);
        _mm256_addsub_ps(by_re, _mm256_mul_ps(_mm256_movehdup_ps(x), swapped))
    }
}

/// [`mul_c32`] in double precision.
#[inline(always)]
unsafe fn mul_c64(x: __m256d, y: __m256d) -> __m256d {
    // SAFETY: the caller has AVX2.
    unsafe {
        let by_re = _mm256_mul_pd(_mm256_movedup_pd(x), y);
        let swapped = _mm256_permute_pd::<0b0101>(y);
        _mm256_addsub_pd(by_re, _mm256_mul_pd(_mm256_permute_pd::<0b1111>(x), swapped))
    }
}

/// A real number is its own conjugate.
#[inline(always)]
unsafe fn same_f32(x: __m256) -> __m256 {
    x
}

#[inline(always)]
unsafe fn same_f64(x: __m256d) -> __m256d {
    x
}

#[inline(always)]
unsafe fn conj_c32(x: __m256) -> __m256 {
    // SAFETY: the caller has AVX2. The sign of the imaginary part is the highest bit of 64.
    unsafe { _mm256_xor_ps(x, _mm256_castsi256_ps(_mm256_set1_epi64x(i64::MIN))) }
}

#[inline(always)]
unsafe fn conj_c64(x: __m256d) -> __m256d {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_xor_pd(x, _mm256_setr_pd(0.0, -0.0, 0.0, -0.0)) }
}
