// What lies between the matrix products of wider heads, against plain loops in double.
#pragma once
#include "flat.h"
#include "../heads_turn.cu"
#include "../heads_weigh.cu"
#include "../heads_weigh_adjoint.cu"

// Chunks of tokens: their sums of ln|a| and arg a.
struct HeadsTokens {
  std::vector<double> log_a, phase;

  HeadsTokens(int chunks, int chunk_len, Decays decays) : log_a(size_t(chunks) * chunk_len), phase(log_a.size()) {
    for (size_t at = 0; at < log_a.size(); at++) {
      const bool is_first = at % size_t(chunk_len) == 0;
      double step = log(dice.unit() + 1e-3);
      if (decays == NEAR_ONE) step *= 1e-3;
      if (decays == ONES) step = 0;
      // Sequences that begin inside: what is before counts for nothing.
      if (decays == SOME_ZERO && dice.one_in(5)) step = -1e4;
      if (decays == ZEROS) step = -200;
      const double turn = decays == SIGNED ? 3.141592653589793 * dice.below(2) : 6.3 * (dice.unit() - 0.5);
      log_a[at] = (is_first ? 0 : log_a[at - 1]) + step;
      phase[at] = (is_first ? 0 : phase[at - 1]) + turn;
    }
  }
};

// e^{g[i] - g[j]} and p[i] - p[j] of two tokens of a chunk.
struct PlainPair {
  double size, angle;
  PlainPair(const HeadsTokens& tokens, size_t i, size_t j)
      : size(exp(tokens.log_a[i] - tokens.log_a[j])), angle(tokens.phase[i] - tokens.phase[j]) {}
};

// `c.batch` chunks of `c.seqlen` tokens.
template <class E>
void check_weigh(const Case& c, void (*kernel)(WeighParams<E>)) {
  tally.cases++;
  const size_t n = size_t(c.seqlen), tokens = size_t(c.batch) * n, pairs = tokens * n;
  const HeadsTokens plain(c.batch, c.seqlen, c.decays);
  Flat<E> scores(pairs);
  Flat<double> log_a(tokens), phase(tokens);
  scores.fill(), log_a.copy(plain.log_a), phase.copy(plain.phase);
  // Above the diagonal nothing is read.
  for (size_t at = 0; at < pairs; at++)
    if (at % n > at / n % n) scores[at] = E(NAN);
  const std::vector<double> before = scores.values();
  const u32 tiles = u32(n + SIDE - 1) / SIDE;
  const WeighParams<E> params = {scores.output(), log_a.input(), phase.input(), u32(n)};
  if (!launch_plain(c, kernel, params, sizeof(Tokens<E>), u32(c.batch) * tiles * tiles)) return;
  check_outside(c, "scores", scores);
  for (size_t at = 0; at < pairs; at++) {
    const size_t i = at / n, j = i / n * n + at % n;
    double expected = 0, size = 0;
    if (j <= i) {
      const PlainPair of(plain, i, j);
      size = fabs(before[at]) * of.size;
      expected = before[at] * of.size * cos(of.angle);
    }
    const Where where = {int(i / n), int(i % n), int(at % n)};
    if (!matches(c, "scores", where, double(scores[at]), expected, Number<E>::bound * size, 0)) return;
  }
}

template <class E>
void check_weigh_adjoint(const Case& c, void (*kernel)(WeighAdjointParams<E>)) {
  tally.cases++;
  const size_t n = size_t(c.seqlen), tokens = size_t(c.batch) * n, pairs = tokens * n;
  const HeadsTokens plain(c.batch, c.seqlen, c.decays);
  const u32 tiles = u32(n + SIDE - 1) / SIDE;
  Flat<E> scores(pairs), dscores(pairs);
  Flat<double> log_a(tokens), phase(tokens);
  std::vector<Flat<double>> sums;
  for (int i = 0; i < 4; i++) sums.emplace_back(tokens * tiles);
  scores.fill(), dscores.fill(), log_a.copy(plain.log_a), phase.copy(plain.phase);
  for (size_t at = 0; at < pairs; at++)
    if (at % n > at / n % n) scores[at] = dscores[at] = E(NAN);
  const std::vector<double> s = scores.values(), d = dscores.values();
  const WeighAdjointParams<E> params = {scores.output(),  dscores.output(), log_a.input(),    phase.input(), sums[0].output(),
                                        sums[1].output(), sums[2].output(), sums[3].output(), u32(n)};
  if (!launch_plain(c, kernel, params, sizeof(WeighAdjointShared<E>), u32(c.batch) * tiles * tiles)) return;
  check_outside(c, "scores", scores), check_outside(c, "dscores", dscores);
  // Of g and p, each as the later token and as the earlier one: the sum and what it is made of.
  std::vector<double> expected[4], sizes[4];
  for (int i = 0; i < 4; i++) expected[i].resize(tokens), sizes[i].resize(tokens);
  for (size_t at = 0; at < pairs; at++) {
    const size_t i = at / n, j = i / n * n + at % n;
    double product = 0, gradient = 0, sizes_of[2] = {0, 0};
    if (j <= i) {
      const PlainPair of(plain, i, j);
      const double weight = of.size * cos(of.angle);
      product = s[at] * weight, gradient = d[at] * weight;
      sizes_of[0] = fabs(s[at]) * of.size, sizes_of[1] = fabs(d[at]) * of.size;
      if (j < i) {
        const double terms[2] = {d[at] * product, -d[at] * s[at] * of.size * sin(of.angle)};
        for (int k = 0; k < 4; k++) {
          const size_t token = k % 2 ? j : i;
          expected[k][token] += terms[k / 2];
          sizes[k][token] += fabs(d[at] * s[at]) * of.size;
        }
      }
    }
    const Where where = {int(i / n), int(i % n), int(at % n)};
    const double bound = Number<E>::bound;
    if (!matches(c, "scores", where, double(scores[at]), product, bound * sizes_of[0], 0)) return;
    if (!matches(c, "dscores", where, double(dscores[at]), gradient, bound * sizes_of[1], 0)) return;
  }
  static const char* const names[4] = {"log_later", "log_earlier", "phase_later", "phase_earlier"};
  for (int k = 0; k < 4; k++) {
    check_outside(c, names[k], sums[size_t(k)]);
    for (size_t token = 0; token < tokens; token++) {
      double sum = 0;
      for (u32 tile = 0; tile < tiles; tile++) sum += sums[size_t(k)][(token / n * tiles + tile) * n + token % n];
      const Where where = {int(token / n), int(token % n), 0};
      if (!matches(c, names[k], where, sum, expected[k][token], Number<E>::bound * sizes[k][token], 0)) return;
    }
  }
  // What each pair gives one token it takes from another, to the last digits of double precision.
  for (int k = 0; k < 4; k += 2) {
    double later = 0, earlier = 0, size = 0;
    for (size_t at = 0; at < tokens * tiles; at++) later += sums[size_t(k)][at], earlier += sums[size_t(k) + 1][at];
    for (double of : sizes[k]) size += of;
    if (!(fabs(later - earlier) <= 1e-12 * size + 1e-300)) fail(c, "%s does not cancel: %g of %g", names[k], later - earlier, size);
  }
}

// `c.batch * c.seqlen` rows of `c.channels`.
template <class E>
void check_turn(const Case& c, void (*kernel)(TurnParams<E>), void (*adjoint)(TurnAdjointParams<E>)) {
  tally.cases++;
  const size_t rows = size_t(c.batch) * size_t(c.seqlen), width = size_t(c.channels);
  const HeadsTokens plain(c.batch, c.seqlen, c.decays);
  const u32 grid = u32((rows + TURN_ROWS - 1) / TURN_ROWS);
  Flat<E> x(rows * width), y(2 * rows * width), dy(2 * rows * width), dx(rows * width);
  Flat<double> log_a(rows), phase(rows), dlog_a(rows), dphase(rows);
  x.fill(), dy.fill(), log_a.copy(plain.log_a), phase.copy(plain.phase);
  const TurnParams<E> forward = {x.input(), log_a.input(), phase.input(), y.output(), i64(rows), u32(width)};
  if (!launch_plain(c, kernel, forward, 0, grid)) return;
  const TurnAdjointParams<E> backward = {x.input(),       dy.input(),       log_a.input(), phase.input(), dx.output(),
                                         dlog_a.output(), dphase.output(), i64(rows),     u32(width)};
  if (!launch_plain(c, adjoint, backward, sizeof(TurnShared), grid)) return;
  check_outside(c, "y", y), check_outside(c, "dx", dx), check_outside(c, "dlog_a", dlog_a), check_outside(c, "dphase", dphase);
  for (size_t row = 0; row < rows; row++) {
    const cd by = std::polar(exp(plain.log_a[row]), plain.phase[row]);
    const double bound = Number<E>::bound * std::abs(by);
    cd turned = 0;
    double size = 0;
    for (size_t i = 0; i < width; i++) {
      const size_t at = row * width + i, re = 2 * row * width + i;
      const Where where = {0, int(row), int(i)};
      const cd got = {double(y[re]), double(y[re + width])}, dgot = {double(dy[re]), double(dy[re + width])};
      const cd back = product(dgot, std::conj(by));
      if (!matches(c, "y", where, got, double(x[at]) * by, bound * fabs(x[at]), 0)) return;
      if (!matches(c, "dx", where, double(dx[at]), back.real(), bound * std::abs(dgot), 0)) return;
      turned += double(x[at]) * back;
      size += fabs(x[at]) * std::abs(dgot);
    }
    const Where where = {0, int(row), 0};
    if (!matches(c, "dlog_a", where, dlog_a[row], turned.real(), bound * size, 0)) return;
    if (!matches(c, "dphase", where, dphase[row], turned.imag(), bound * size, 0)) return;
  }
}
