// scores[i, j] *= e^{g[i] - g[j]} cos(p[i] - p[j]) for j <= i, and 0 above: in place, [chunks, C, C].
#include "heads.cuh"

template <class R>
struct WeighParams {
  R* scores;
  const double *log_a, *phase; // [chunks, C]: g and p
  u32 chunk_len;
};

template <class R>
DEVICE void weigh(const WeighParams<R>& params) {
  SHARED(Tokens<R>, tokens);
  const PairTile tile = PairTile::of_block(params.chunk_len);
  tokens.load(tile, params.log_a, params.phase);
  block_barrier();
  const u32 column = threadIdx.x % SIDE, j = tile.earlier + column;
#pragma unroll 4
  for (u32 row = threadIdx.x / SIDE; row < SIDE; row += GROUPS) {
    const u32 i = tile.later + row;
    if (!tile.has(i, j)) continue;
    R* score = params.scores + tile.at(i, j);
    R weighed = R(0); // whatever the score is
    if (j <= i) {
      const Pair<R> of = pair(tokens.later[row], tokens.earlier[column]);
      weighed = *score * (of.size * of.cos);
    }
    store_kept(score, weighed);
  }
}

KERNEL(HEADS_THREADS, 4) heads_weigh_f32(const WeighParams<float> params) { weigh(params); }
KERNEL(HEADS_THREADS, 4) heads_weigh_f64(const WeighParams<double> params) { weigh(params); }
