// Chunkwise GateLoop for heads of any width: what lies between its matrix products.
//
// With g and p the sums of ln|a| and arg a from the start of a chunk, the weight of an earlier token j for a later one i is
// e^{g[i] - g[j]} cos(p[i] - p[j]), and 0 for a token that is still to come. Derivation: docs/math.md.
#pragma once
#include "element.cuh"

// Sine and cosine of p: of pi times p / pi.
DEVICE void direction(double phase, double& sine, double& cosine) {
  sine_cosine_pi(phase * 0.31830988618379067154, sine, cosine);
}

// A token as the weights need it: g in two parts, whose differences keep the digits of a sum in double precision, and the
// direction of p, found in double precision: a narrower angle of several turns would not keep it.
template <class R>
struct Token {
  R log, rest, cos, sin;
};
template <class R>
DEVICE Token<R> token(double log_a, double phase) {
  double sine, cosine;
  direction(phase, sine, cosine);
  const R log = R(log_a);
  return {log, R(log_a - double(log)), R(cosine), R(sine)};
}

DEVICE float exponential(float v) { return exp2_fast(1.442695041f * v); }
DEVICE double exponential(double v) { return exp(v); }

// Of a pair of tokens: e^{g[i] - g[j]}, and cosine and sine of p[i] - p[j].
template <class R>
struct Pair {
  R size, cos, sin;
};
template <class R>
DEVICE Pair<R> pair(const Token<R>& later, const Token<R>& earlier) {
  const R size = exponential((later.log - earlier.log) + (later.rest - earlier.rest));
  return {size, fused(later.cos, earlier.cos, later.sin * earlier.sin),
          fused(later.sin, earlier.cos, -(later.cos * earlier.sin))};
}

// Tokens a side of a tile of pairs. A thread has one earlier token and every `GROUPS`th later one.
constexpr int SIDE = 64, HEADS_THREADS = 256, GROUPS = HEADS_THREADS / SIDE;

// The tile of a block: [chunks, later tokens, earlier tokens], tiles of earlier tokens side by side.
struct PairTile {
  i64 chunk;
  u32 later, earlier; // its first tokens
  u32 chunk_len, tiles;

  DEVICE static PairTile of_block(u32 chunk_len) {
    const u32 tiles = (chunk_len + SIDE - 1) / SIDE, block = blockIdx.x;
    return {i64(block / (tiles * tiles)), block / tiles % tiles * SIDE, block % tiles * SIDE, chunk_len, tiles};
  }
  DEVICE bool has(u32 i, u32 j) const { return i < chunk_len && j < chunk_len; }
  DEVICE i64 at(u32 i, u32 j) const { return (chunk * chunk_len + i) * chunk_len + j; }
};

template <class R>
struct Tokens {
  Token<R> later[SIDE], earlier[SIDE];

  // By all threads of a block, before a barrier. Beyond the chunk nothing is read of them.
  DEVICE void load(const PairTile& tile, const double* log_a, const double* phase) {
    const u32 thread = threadIdx.x, side = thread / SIDE, i = thread % SIDE;
    if (side > 1) return;
    const u32 t = (side ? tile.earlier : tile.later) + i;
    if (t >= tile.chunk_len) return;
    const i64 at = tile.chunk * tile.chunk_len + t;
    (side ? earlier : later)[i] = token<R>(log_a[at], phase[at]);
  }
};
