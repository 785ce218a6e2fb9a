// The two gates: how the decay and the input of the recurrence come from what the layer projects, and
// the way back.
#pragma once
#include "pass.cuh"

DEVICE float sigmoid(float v) { return inverse_fast(1.f + exp2_fast(-1.442695041f * v)); }
DEVICE double sigmoid(double v) { return 1. / (1. + exp(-v)); }

// Where a number points and how far: z = size * direction; 1 / size, or 0 where z is zero or nearly.
template <class R>
struct Polar {
  Complex<R> direction;
  R size, inverse;
};
DEVICE Polar<double> polar(Complex<double> z) {
  const double size = hypot(z.re, z.im);
  if (size < 1e-37) return {{copysign(1., z.re), 0.}, 0., 0.};
  const double inverse = 1. / size;
  return {{z.re * inverse, z.im * inverse}, size, inverse};
}
// The larger part is brought between 1 and 2 by a power of two, so that no square overflows or vanishes.
DEVICE Polar<float> polar(Complex<float> z) {
  const u32 exponent = bits_of(fmaxf(fabsf(z.re), fabsf(z.im))) & 0x7f800000u;
  const u32 unit = exponent < 0x7e800000u ? exponent : 0x7e800000u;
  const float scale = f32_of(0x7f000000u - unit);
  // arg 0 is 0, at negative zero it is pi: what is added says so. It turns any other number by 1e-12 at most.
  const float re = fused(z.re, scale, copysignf(0x1p-40f, z.re)), im = z.im * scale;
  const float square = fused(re, re, im * im), root = rsqrt_fast(square);
  return {{re * root, im * root}, square * root * f32_of(unit), unit < 0x04800000u ? 0.f : root * scale};
}

enum Mode : u32 { COMPLEX = 0, REAL = 1, IDENTITY = 2 };

// GateLoop with heads of width 1: h = a h + k v with complex a = sigmoid(|z|) e^{i arg z}, y = q Re(h).
struct MaxHeads {
  template <class E> using Gate = Complex<E>;
  template <class E> using State = Complex<Wide<E>>;
  static constexpr bool HAS_VALUE = true;

  // What the gradient wants to know again besides z. `inverse` is zero where z is.
  template <class R>
  struct Decay {
    Complex<R> a;
    R inverse;
  };

  template <class R>
  DEVICE static Decay<R> decay(Complex<R> z) {
    const Polar<R> at = polar(z);
    const R size = sigmoid(at.size);
    return {{at.direction.re * size, at.direction.im * size}, at.inverse};
  }
  // The gradient of z from that of a; zero at zero, as libtorch has it. Along the direction of z the
  // modulus turns, across it the phase.
  template <class R>
  DEVICE static Complex<R> decay_gradient(Complex<R> z, const Decay<R>& decay, Complex<R> da) {
    const R re = z.re * decay.inverse, im = z.im * decay.inverse; // the direction of z
    const R size = fused(re, decay.a.re, im * decay.a.im);
    const Complex<R> turned = times(conj(decay.a), da);
    const R along = turned.re * (R(1) - size), across = turned.im * decay.inverse;
    return {fused(re, along, -(im * across)), fused(im, along, re * across)};
  }

  // The ablations. Mode REAL looks at the real part alone.
  template <class R>
  DEVICE static Decay<R> decay(Complex<R> z, u32 mode) {
    if (mode == COMPLEX) return decay(z);
    if (mode == IDENTITY) return {{R(1), R(0)}, R(0)};
    const R size = sigmoid(fabs(z.re));
    return {{z.re < R(0) ? -size : size, R(0)}, R(0)};
  }
  template <class R>
  DEVICE static Complex<R> decay_gradient(Complex<R> z, const Decay<R>& decay, Complex<R> da, u32 mode) {
    if (mode == COMPLEX) return decay_gradient(z, decay, da);
    if (mode == IDENTITY || z.re == R(0)) return {R(0), R(0)};
    const R size = fabs(decay.a.re);
    return {da.re * size * (R(1) - size), R(0)};
  }
  DEVICE static bool is_plain(u32 mode) { return mode == COMPLEX; }

  template <class R>
  DEVICE static R real(Complex<R> h) { return h.re; }
  template <class R>
  DEVICE static Complex<R> of_real(R v) { return {v, R(0)}; }
};

// SimpleGateLoop: h = sigmoid(z) h + kv, y = q h.
struct Simple {
  template <class E> using Gate = E;
  template <class E> using State = Wide<E>;
  static constexpr bool HAS_VALUE = false;

  template <class R>
  struct Decay {
    R a;
  };
  template <class R>
  DEVICE static Decay<R> decay(R z) { return {sigmoid(z)}; }
  template <class R>
  DEVICE static R decay_gradient(R, const Decay<R>& decay, R da) { return da * decay.a * (R(1) - decay.a); }
  // There are no ablations.
  template <class R>
  DEVICE static Decay<R> decay(R z, u32) { return decay(z); }
  template <class R>
  DEVICE static R decay_gradient(R z, const Decay<R>& of, R da, u32) { return decay_gradient(z, of, da); }
  DEVICE static bool is_plain(u32) { return true; }

  template <class R>
  DEVICE static R real(R h) { return h; }
  template <class R>
  DEVICE static R of_real(R v) { return v; }
};
