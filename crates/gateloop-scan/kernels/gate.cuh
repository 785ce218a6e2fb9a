// The two gates: how the decay and the input of the recurrence come from what the layer projects, and
// the way back.
#pragma once
#include "pass.cuh"

template <class R>
DEVICE R sigmoid(R v) { return divide_fast(R(1), R(1) + exp_fast(-v)); }

enum Mode : u32 { COMPLEX = 0, REAL = 1, IDENTITY = 2 };

// GateLoop with heads of width 1: h = a h + k v with complex a = sigmoid(|z|) e^{i arg z}, y = q Re(h).
struct MaxHeads {
  template <class E> using Gate = Complex<E>;
  template <class E> using State = Complex<Wide<E>>;
  static constexpr bool HAS_VALUE = true;

  // What the gradient wants to know again: |a| and 1 / |z|, which is zero where z is.
  template <class R>
  struct Decay {
    Complex<R> a;
    R size, inverse;
  };

  template <class R>
  DEVICE static Decay<R> decay(Complex<R> z, u32 mode) {
    if (mode == IDENTITY) return {{R(1), R(0)}, R(1), R(0)};
    if (mode == REAL) {
      const R size = sigmoid(fabs(z.re));
      return {{z.re < R(0) ? -size : size, R(0)}, size, R(0)};
    }
    // |z| by way of the larger part: nothing overflows or underflows on the way.
    const R re = fabs(z.re), im = fabs(z.im);
    const R large = re > im ? re : im, small = re > im ? im : re;
    const bool is_zero = large < R(1e-37);
    const R safe = is_zero ? R(1) : large;
    const R ratio = divide_fast(small, safe);
    const R square = fused(ratio, ratio, R(1)), root = rsqrt_fast(square);
    const R size = sigmoid(large * square * root);
    const R inverse = is_zero ? R(0) : divide_fast(root, safe);
    const R scale = size * inverse;
    // arg 0 is 0; at negative zero it is pi.
    return {{is_zero ? copysign(size, z.re) : z.re * scale, z.im * scale}, size, inverse};
  }
  // The gradient of z from that of a; zero at zero, as libtorch has it.
  template <class R>
  DEVICE static Complex<R> decay_gradient(Complex<R> z, const Decay<R>& decay, Complex<R> da, u32 mode) {
    if (mode == IDENTITY || (mode == COMPLEX && decay.inverse == R(0))) return {R(0), R(0)};
    if (mode == REAL) {
      const R slope = decay.size * (R(1) - decay.size);
      return {z.re == R(0) ? R(0) : da.re * slope, R(0)};
    }
    const R re = z.re * decay.inverse, im = z.im * decay.inverse; // the direction of z
    // Along the direction the modulus turns, across it the phase.
    const R along = fused(re, da.re, im * da.im) * decay.size * (R(1) - decay.size);
    const R across = fused(re, da.im, -(im * da.re)) * decay.size * decay.inverse;
    return {fused(re, along, -(im * across)), fused(im, along, re * across)};
  }
  template <class R>
  DEVICE static Complex<R> input(R k, R v) { return {k * v, R(0)}; }
  template <class R>
  DEVICE static R output(R q, Complex<R> h) { return q * h.re; }
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
  DEVICE static Decay<R> decay(R z, u32) { return {sigmoid(z)}; }
  template <class R>
  DEVICE static R decay_gradient(R, const Decay<R>& decay, R da, u32) {
    return da * decay.a * (R(1) - decay.a);
  }
  template <class R>
  DEVICE static R input(R kv, R) { return kv; }
  template <class R>
  DEVICE static R output(R q, R h) { return q * h; }
  template <class R>
  DEVICE static R real(R h) { return h; }
  template <class R>
  DEVICE static R of_real(R v) { return v; }
};
