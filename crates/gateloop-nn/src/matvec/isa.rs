//! The vectors that this machine has, chosen at run time.
//!
//! A value of a type that implements [`Isa`] is the proof that the machine has the instructions: only
//! [`dispatch`] makes one, after it has looked.

/// Numbers in a vector, whatever the registers' width.
pub(crate) const LANES: usize = 16;

/// Rows that [`Isa::turn`] turns into columns.
pub(crate) const TURNED: usize = 8;

/// Sixteen f32 at a time. Every method is inlined into the function that enables the instructions.
pub(crate) trait Isa: Copy {
    /// The registers that hold [`LANES`] f32.
    type Vector: Copy;

    /// Whether sixteen vectors and what is multiplied for them fit in the registers.
    const HAS_ROOM_FOR_TWO: bool;

    fn zero(self) -> Self::Vector;
    /// One number, [`LANES`] times.
    fn splat(self, value: f32) -> Self::Vector;
    fn load_f32(self, values: &[f32; LANES]) -> Self::Vector;
    /// From the upper halves of f32.
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::Vector;
    fn load_i8(self, values: &[i8; LANES]) -> Self::Vector;
    /// a b + c, rounded once where the machine can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    fn sum(self, values: Self::Vector) -> f32;
    fn store(self, values: Self::Vector, to: &mut [f32; LANES]);

    /// The columns of `rows`.
    #[inline(always)]
    fn turn(self, rows: [&[f32; LANES]; TURNED]) -> [[f32; TURNED]; LANES] {
        std::array::from_fn(|lane| rows.map(|row| row[lane]))
    }

    /// Has the line of `at` brought near, where the machine can be asked.
    #[inline(always)]
    fn prefetch<T>(self, _at: &T) {}
}

/// Work that is compiled once for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    fn run<I: Isa>(self, isa: I);
}

/// Runs `kernel` with the best instructions of this machine.
pub(crate) fn dispatch<K: Kernel>(kernel: K) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx2") && has!("fma") {
            // SAFETY: this machine has the features that the function enables.
            return unsafe { x86::avx512(kernel) };
        }
        if has!("avx2") && has!("fma") {
            // SAFETY: this machine has the features that the function enables.
            return unsafe { x86::avx2(kernel) };
        }
    }
    kernel.run(Portable);
}

/// Runs `kernel` with the instructions of a level: portable code, AVX2, the best. False where there is no such level.
#[cfg(test)]
pub(super) fn run_at<K: Kernel>(level: usize, kernel: K) -> bool {
    match level {
        0 => kernel.run(Portable),
        #[cfg(target_arch = "x86_64")]
        1 if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma") =>
        {
            // SAFETY: this machine has the features that the function enables.
            unsafe { x86::avx2(kernel) }
        }
        2 => dispatch(kernel),
        _ => return false,
    }
    true
}

/// Plain Rust, left to the compiler; on aarch64 it finds NEON.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Isa for Portable {
    type Vector = [f32; LANES];
    const HAS_ROOM_FOR_TWO: bool = false;

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        [0.0; LANES]
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; LANES]
    }

    #[inline(always)]
    fn load_f32(self, values: &[f32; LANES]) -> Self::Vector {
        *values
    }

    #[inline(always)]
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::Vector {
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    fn load_i8(self, values: &[i8; LANES]) -> Self::Vector {
        values.map(f32::from)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // Not `f32::mul_add`: without the instruction that is a call of the C library.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn sum(self, values: Self::Vector) -> f32 {
        values.iter().sum()
    }

    #[inline(always)]
    fn store(self, values: Self::Vector, to: &mut [f32; LANES]) {
        *to = values;
    }
}

// The casts are for loads that need no alignment.
#[allow(clippy::cast_ptr_alignment)]
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Isa, Kernel, LANES, TURNED};
    use core::arch::x86_64::{
        __m128i, __m256, __m256i, __m512, _MM_HINT_T1, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
        _mm_loadl_epi64, _mm_loadu_si128, _mm_movehl_ps, _mm_prefetch, _mm_shuffle_ps,
        _mm256_add_ps, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cvtepi8_epi32,
        _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_permute2f128_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_castsi512_ps, _mm512_cvtepi8_epi32,
        _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
        _mm512_storeu_ps,
    };

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn avx512<K: Kernel>(kernel: K) {
        kernel.run(Avx512(()));
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<K: Kernel>(kernel: K) {
        kernel.run(Avx2(()));
    }

    /// Into the second-level cache: the first is full of what is being worked on.
    #[inline(always)]
    fn prefetch<T>(at: &T) {
        // SAFETY: every x86-64 machine has the instruction, and it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(core::ptr::from_ref(at).cast()) }
    }

    /// The columns of eight rows, by exchanging halves three times: of pairs, of fours, of registers.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn turn(rows: [&[f32; LANES]; TURNED]) -> [[f32; TURNED]; LANES] {
        let mut columns = [[0.0; TURNED]; LANES];
        let (left, right) = columns.split_at_mut(TURNED);
        for (columns, offset) in [(left, 0), (right, TURNED)] {
            // SAFETY: both halves of a row have eight numbers.
            let r = rows.map(|row| unsafe { _mm256_loadu_ps(row[offset..].as_ptr()) });
            let mut pairs = r;
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut fours = pairs;
            for i in 0..2 {
                for half in 0..2 {
                    let (a, b) = (pairs[4 * i + half], pairs[4 * i + 2 + half]);
                    fours[4 * i + 2 * half] = _mm256_shuffle_ps::<0x44>(a, b);
                    fours[4 * i + 2 * half + 1] = _mm256_shuffle_ps::<0xEE>(a, b);
                }
            }
            for i in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
                let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
                // SAFETY: a column has eight numbers.
                unsafe {
                    _mm256_storeu_ps(columns[i].as_mut_ptr(), low);
                    _mm256_storeu_ps(columns[i + 4].as_mut_ptr(), high);
                }
            }
        }
        columns
    }

    /// Two registers of eight.
    #[derive(Clone, Copy)]
    struct Avx2(());

    impl Isa for Avx2 {
        type Vector = [__m256; 2];
        const HAS_ROOM_FOR_TWO: bool = false;

        #[inline(always)]
        fn zero(self) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX2.
            unsafe { [_mm256_setzero_ps(); 2] }
        }

        #[inline(always)]
        fn splat(self, value: f32) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX2.
            unsafe { [_mm256_set1_ps(value); 2] }
        }

        #[inline(always)]
        fn load_f32(self, values: &[f32; LANES]) -> Self::Vector {
            let from = values.as_ptr();
            // SAFETY: `self` exists only where the machine has AVX2; both halves lie in `values`.
            unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        }

        #[inline(always)]
        fn load_bf16(self, bits: &[u16; LANES]) -> Self::Vector {
            let from = bits.as_ptr().cast::<__m128i>();
            // SAFETY: `self` exists only where the machine has AVX2; both halves lie in `bits`, and
            // the loads need no alignment.
            unsafe {
                let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from));
                let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(1)));
                [
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
                ]
            }
        }

        #[inline(always)]
        fn load_i8(self, values: &[i8; LANES]) -> Self::Vector {
            let from = values.as_ptr().cast::<__m128i>();
            // SAFETY: `self` exists only where the machine has AVX2; both halves lie in `values`, and
            // the loads need no alignment.
            unsafe {
                let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from));
                let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.byte_add(8)));
                [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
            }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has FMA.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn sum(self, [low, high]: Self::Vector) -> f32 {
            // SAFETY: `self` exists only where the machine has AVX2.
            unsafe {
                let eight = _mm256_add_ps(low, high);
                let four =
                    _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }

        #[inline(always)]
        fn store(self, [low, high]: Self::Vector, to: &mut [f32; LANES]) {
            let to = to.as_mut_ptr();
            // SAFETY: `self` exists only where the machine has AVX2; both halves lie in `to`.
            unsafe {
                _mm256_storeu_ps(to, low);
                _mm256_storeu_ps(to.add(8), high);
            }
        }

        #[inline(always)]
        fn turn(self, rows: [&[f32; LANES]; TURNED]) -> [[f32; TURNED]; LANES] {
            // SAFETY: `self` exists only where the machine has AVX2.
            unsafe { turn(rows) }
        }

        #[inline(always)]
        fn prefetch<T>(self, at: &T) {
            prefetch(at);
        }
    }

    /// One register of sixteen.
    #[derive(Clone, Copy)]
    struct Avx512(());

    impl Isa for Avx512 {
        type Vector = __m512;
        const HAS_ROOM_FOR_TWO: bool = true;

        #[inline(always)]
        fn zero(self) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX-512F.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        fn splat(self, value: f32) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX-512F.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn load_f32(self, values: &[f32; LANES]) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX-512F; no alignment is needed.
            unsafe { _mm512_loadu_ps(values.as_ptr()) }
        }

        #[inline(always)]
        fn load_bf16(self, bits: &[u16; LANES]) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX-512F; no alignment is needed.
            unsafe {
                let all = _mm256_loadu_si256(bits.as_ptr().cast::<__m256i>());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(all)))
            }
        }

        #[inline(always)]
        fn load_i8(self, values: &[i8; LANES]) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX-512F; no alignment is needed.
            unsafe {
                let all = _mm_loadu_si128(values.as_ptr().cast());
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(all))
            }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            // SAFETY: `self` exists only where the machine has AVX-512F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn sum(self, values: Self::Vector) -> f32 {
            // SAFETY: `self` exists only where the machine has AVX-512F.
            unsafe { _mm512_reduce_add_ps(values) }
        }

        #[inline(always)]
        fn store(self, values: Self::Vector, to: &mut [f32; LANES]) {
            // SAFETY: `self` exists only where the machine has AVX-512F; no alignment is needed.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) }
        }

        #[inline(always)]
        fn turn(self, rows: [&[f32; LANES]; TURNED]) -> [[f32; TURNED]; LANES] {
            // SAFETY: `self` exists only where the machine has AVX2.
            unsafe { turn(rows) }
        }

        #[inline(always)]
        fn prefetch<T>(self, at: &T) {
            prefetch(at);
        }
    }
}
