// The numbers: what lies in memory (f32, f64, bf16, f16 and complex pairs) and what is computed with.
#pragma once
#include "device.cuh"

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

template <class R>
struct alignas(2 * sizeof(R)) Complex { R re, im; };

// The state's type: float or double, or a pair of them; never narrower than f32.
template <class E> struct WideOf { using type = E; };
template <> struct WideOf<bf16> { using type = float; };
template <> struct WideOf<f16> { using type = float; };
template <class R> struct WideOf<Complex<R>> { using type = Complex<typename WideOf<R>::type>; };
template <class E> using Wide = typename WideOf<E>::type;

DEVICE float widen(float v) { return v; }
DEVICE double widen(double v) { return v; }
DEVICE float widen(bf16 v) { return bf16_to_f32(v.bits); }
DEVICE float widen(f16 v) { return f16_to_f32(v.bits); }
template <class R>
DEVICE Complex<Wide<R>> widen(Complex<R> v) { return {widen(v.re), widen(v.im)}; }

DEVICE void narrow(float v, float& to) { to = v; }
DEVICE void narrow(double v, double& to) { to = v; }
DEVICE void narrow(float v, bf16& to) { to.bits = f32_to_bf16(v); }
DEVICE void narrow(float v, f16& to) { to.bits = f32_to_f16(v); }
template <class W, class R>
DEVICE void narrow(Complex<W> v, Complex<R>& to) {
  narrow(v.re, to.re);
  narrow(v.im, to.im);
}

// Arithmetic of the state. `fused` is a b + c in one rounding (one per part and product for pairs).
DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }
template <class R>
DEVICE Complex<R> fused(Complex<R> a, Complex<R> b, Complex<R> c) {
  return {fused(a.re, b.re, fused(-a.im, b.im, c.re)), fused(a.re, b.im, fused(a.im, b.re, c.im))};
}
DEVICE float times(float a, float b) { return a * b; }
DEVICE double times(double a, double b) { return a * b; }
template <class R>
DEVICE Complex<R> times(Complex<R> a, Complex<R> b) {
  return {fused(a.re, b.re, -(a.im * b.im)), fused(a.re, b.im, a.im * b.re)};
}
DEVICE float plus(float a, float b) { return a + b; }
DEVICE double plus(double a, double b) { return a + b; }
template <class R>
DEVICE Complex<R> plus(Complex<R> a, Complex<R> b) { return {a.re + b.re, a.im + b.im}; }
DEVICE float conj(float a) { return a; }
DEVICE double conj(double a) { return a; }
template <class R>
DEVICE Complex<R> conj(Complex<R> a) { return {a.re, -a.im}; }

template <class S> struct Constant;
template <> struct Constant<float> {
  DEVICE static float zero() { return 0.f; }
  DEVICE static float one() { return 1.f; }
};
template <> struct Constant<double> {
  DEVICE static double zero() { return 0.; }
  DEVICE static double one() { return 1.; }
};
template <class R> struct Constant<Complex<R>> {
  DEVICE static Complex<R> zero() { return {R(0), R(0)}; }
  DEVICE static Complex<R> one() { return {R(1), R(0)}; }
};

template <int BYTES> struct RawOf;
template <> struct RawOf<2> { using type = u16; };
template <> struct RawOf<4> { using type = u32; };
template <> struct RawOf<8> { using type = u64; };
template <> struct RawOf<16> { using type = ulonglong2; };

template <class E>
DEVICE void store_element(E* p, Wide<E> v) {
  union { E element; typename RawOf<sizeof(E)>::type raw; } both;
  narrow(v, both.element);
  store_streaming(reinterpret_cast<typename RawOf<sizeof(E)>::type*>(p), both.raw);
}
// N neighbours at once; the address is aligned to all of them.
template <class E, int N>
DEVICE void store_elements(E* p, const Wide<E> (&v)[N]) {
  using Raw = typename RawOf<N * int(sizeof(E))>::type;
  union { E element[N]; Raw raw; } all;
#pragma unroll
  for (int i = 0; i < N; i++) narrow(v[i], all.element[i]);
  store_streaming(reinterpret_cast<Raw*>(p), all.raw);
}
