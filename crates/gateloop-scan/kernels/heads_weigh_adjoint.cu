// The adjoint of heads_weigh.cu, from the products q k^T and the gradient of the weighed scores, which become the weighed
// scores and the gradient of the products; and what each pair does to g and p, added up by token.
//
// A gradient of g or p at a token is what it gets as the later one of its pairs less what it gets as the earlier one. Most
// of that cancels, so both are sums of the same numbers, in double precision, and a token and itself are left out.
#include "heads.cuh"

template <class R>
struct WeighAdjointParams {
  R *scores, *dscores;         // [chunks, C, C]
  const double *log_a, *phase; // [chunks, C]: g and p
  // [chunks, tiles, C]: of g and of p, each as the later token by tile of earlier ones, and the other way round
  double *log_later, *log_earlier, *phase_later, *phase_earlier;
  u32 chunk_len;
};

template <class R>
struct WeighAdjointShared {
  Tokens<R> tokens;
  R pairs[SIDE][SIDE + 1];
  double columns[GROUPS][SIDE], rows[SIDE][GROUPS];
};

// Adds up the rows of `pairs` and, of what each thread has for its column, the columns.
template <class R>
DEVICE void sum_pairs(WeighAdjointShared<R>& shared, const PairTile& tile, double column, double* later, double* earlier) {
  const u32 thread = threadIdx.x, row = thread / GROUPS, part = thread % GROUPS;
  shared.columns[thread / SIDE][thread % SIDE] = column;
  block_barrier(); // the pairs and the columns are there
  double sum = 0;
#pragma unroll
  for (int j = 0; j < SIDE / GROUPS; j++) sum += double(shared.pairs[row][part * (SIDE / GROUPS) + j]);
  shared.rows[row][part] = sum;
  block_barrier(); // and so are the rows
  if (thread < SIDE) {
    double by_row = 0, by_column = 0;
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
      by_row += shared.rows[thread][i];
      by_column += shared.columns[i][thread];
    }
    const i64 first = tile.chunk * tile.tiles;
    const u32 i = tile.later + thread, j = tile.earlier + thread;
    if (i < tile.chunk_len) store_kept(later + (first + tile.earlier / SIDE) * tile.chunk_len + i, by_row);
    if (j < tile.chunk_len) store_kept(earlier + (first + tile.later / SIDE) * tile.chunk_len + j, by_column);
  }
}

template <class R>
DEVICE void weigh_adjoint(const WeighAdjointParams<R>& params) {
  SHARED(WeighAdjointShared<R>, shared);
  const PairTile tile = PairTile::of_block(params.chunk_len);
  shared.tokens.load(tile, params.log_a, params.phase);
  block_barrier();
  const u32 column = threadIdx.x % SIDE, group = threadIdx.x / SIDE, j = tile.earlier + column;
  double log_column = 0, phase_column = 0;
  R phases[SIDE / GROUPS];
#pragma unroll
  for (int n = 0; n < SIDE / GROUPS; n++) {
    const u32 row = group + n * GROUPS, i = tile.later + row;
    R of_log = R(0), of_phase = R(0);
    if (tile.has(i, j)) {
      R *score = params.scores + tile.at(i, j), *dscore = params.dscores + tile.at(i, j);
      R weighed = R(0), dproduct = R(0); // whatever came in
      if (j <= i) {
        const Pair<R> of = pair(shared.tokens.later[row], shared.tokens.earlier[column]);
        const R product = *score, gradient = *dscore, weight = of.size * of.cos;
        weighed = product * weight;
        dproduct = gradient * weight;
        if (j < i) {
          of_log = gradient * weighed;
          of_phase = -(gradient * (product * (of.size * of.sin)));
        }
      }
      store_kept(score, weighed);
      store_kept(dscore, dproduct);
    }
    log_column += double(of_log);
    phase_column += double(of_phase);
    shared.pairs[row][column] = of_log;
    phases[n] = of_phase;
  }
  sum_pairs(shared, tile, log_column, params.log_later, params.log_earlier);
  block_barrier(); // the sums of g are read
#pragma unroll
  for (int n = 0; n < SIDE / GROUPS; n++) shared.pairs[group + n * GROUPS][column] = phases[n];
  sum_pairs(shared, tile, phase_column, params.phase_later, params.phase_earlier);
}

KERNEL(HEADS_THREADS, 3) heads_weigh_adjoint_f32(const WeighAdjointParams<float> params) { weigh_adjoint(params); }
KERNEL(HEADS_THREADS, 2) heads_weigh_adjoint_f64(const WeighAdjointParams<double> params) { weigh_adjoint(params); }
