// The root-mean-square norm and its adjoint against plain loops in double.
#pragma once
#include "flat.h"
#include "../rms_norm.cu"
#include "../rms_norm_adjoint.cu"

static_assert(ROW_THREADS == PLAIN_THREADS);

// Rows of all lengths: of numbers around 1, around 1e4, so small that the least length counts, and of zeros.
template <class E>
void fill_rows(Flat<E>& x, size_t width) {
  for (size_t at = 0; at < x.size; at++) {
    const double sizes[] = {1, 1e4, 1e-15, 0};
    x[at] = Number<E>::to(sizes[at / width % 4] * gauss_pair());
  }
}

struct PlainLength {
  double inverse, scale;
  bool turns;
  template <class E>
  PlainLength(Flat<E>& x, size_t row, size_t width, u32 kind) : scale(sqrt(double(width))) {
    double squares = 0;
    for (size_t i = 0; i < width; i++) squares += x.value(row * width + i) * x.value(row * width + i);
    const double length = kind == EPSILON ? sqrt(squares + 1e-5) : sqrt(squares);
    turns = kind == EPSILON || length > 1e-12;
    inverse = turns ? 1 / length : 1e12;
  }
};

// The warps that a launch gives a row.
inline u32 warps_of(int width) {
  u32 warps = 1;
  while (int(warps) * 32 * HELD < width) warps *= 2;
  return warps;
}

// `c.seqlen` rows of `c.channels`.
template <class E, class F>
void check_rms_norm(const Case& c, void (*kernel)(RmsNormParams<E, F>)) {
  tally.cases++;
  const size_t rows = size_t(c.seqlen), width = size_t(c.channels);
  const u32 warps = warps_of(c.channels), kind = c.mode % 2;
  Flat<E> x(rows * width, c.layout), gamma(width);
  Flat<F> y(rows * width);
  fill_rows(x, width), gamma.fill();
  const u32 aligned = x.array.is_aligned() && width * sizeof(E) % 16 == 0;
  const RmsNormParams<E, F> params = {x.input(), gamma.input(), y.output(), i64(rows), u32(width), warps, kind, aligned};
  if (!launch_plain(c, kernel, params, sizeof(TeamSums<E, 1>), 1 + dice.below(5))) return;
  check_outside(c, "y", y);
  for (size_t row = 0; row < rows; row++) {
    const PlainLength of(x, row, width, kind);
    for (size_t i = 0; i < width; i++) {
      const size_t at = row * width + i;
      const double expected = x.value(at) * of.inverse * of.scale * gamma.value(i);
      const double allowed = Number<E>::bound * fabs(expected);
      if (!matches(c, "y", {0, int(row), int(i)}, y.value(at), expected, allowed, Number<F>::unit)) return;
    }
  }
}

template <class E, class F>
void check_rms_norm_adjoint(const Case& c, void (*kernel)(RmsNormAdjointParams<E, F>)) {
  tally.cases++;
  const size_t rows = size_t(c.seqlen), width = size_t(c.channels);
  const u32 warps = warps_of(c.channels), kind = c.mode % 2, blocks = 1 + dice.below(5);
  const bool has_shortcut = dice.one_in(2);
  Flat<E> x(rows * width, c.layout), gamma(width), shortcut(rows * width), dx(rows * width), dgamma(blocks * width);
  Flat<F> dy(rows * width);
  fill_rows(x, width), gamma.fill(), shortcut.fill(), dy.fill();
  const u32 aligned = x.array.is_aligned() && width * sizeof(E) % 16 == 0;
  const RmsNormAdjointParams<E, F> params = {
      x.input(),   gamma.input(),   dy.input(), has_shortcut ? shortcut.input() : nullptr,
      dx.output(), dgamma.output(), i64(rows),  u32(width),
      warps,       kind,            aligned};
  if (!launch_plain(c, kernel, params, sizeof(RmsNormAdjointShared<E>), blocks)) return;
  check_outside(c, "dx", dx), check_outside(c, "dgamma", dgamma);
  std::vector<double> sums(width), sizes(width);
  for (size_t row = 0; row < rows; row++) {
    const PlainLength of(x, row, width, kind);
    double along = 0, along_size = 0;
    for (size_t i = 0; i < width; i++) {
      const size_t at = row * width + i;
      const double term = x.value(at) * of.inverse * gamma.value(i) * dy.value(at);
      along += term, along_size += fabs(term);
    }
    if (!of.turns) along = along_size = 0;
    for (size_t i = 0; i < width; i++) {
      const size_t at = row * width + i;
      const double u = x.value(at) * of.inverse, g = gamma.value(i) * dy.value(at), by = of.scale * of.inverse;
      const double added = has_shortcut ? shortcut.value(at) : 0;
      const double expected = by * (g - u * along) + added;
      const double size = by * (fabs(g) + fabs(u) * along_size) + fabs(added);
      sums[i] += of.scale * u * dy.value(at), sizes[i] += of.scale * fabs(u * dy.value(at));
      if (!matches(c, "dx", {0, int(row), int(i)}, dx.value(at), expected, Number<E>::bound * size, 0)) return;
    }
  }
  for (size_t i = 0; i < width; i++) {
    double sum = 0;
    for (u32 block = 0; block < blocks; block++) sum += dgamma.value(block * width + i);
    if (!matches(c, "dgamma", {0, 0, int(i)}, sum, sums[i], Number<E>::bound * sizes[i], 0)) return;
  }
}
