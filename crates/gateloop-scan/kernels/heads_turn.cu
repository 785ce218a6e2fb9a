// y = [x e^g cos p, x e^g sin p]: queries before they meet a state, and keys on their way into one; and the way back.
#include "heads.cuh"

template <class R>
struct TurnParams {
  const R* x;                  // [rows, width]
  const double *log_a, *phase; // [rows]: g and p
  R* y;                        // [rows, 2 width]
  i64 rows;
  u32 width;
};

template <class R>
struct TurnAdjointParams {
  const R *x, *dy;
  const double *log_a, *phase;
  R* dx;                  // [rows, width]
  double *dlog_a, *dphase; // [rows]
  i64 rows;
  u32 width;
};

// A warp has a row.
constexpr int LANES = 32, TURN_ROWS = HEADS_THREADS / LANES;

template <class R>
struct Turned {
  R cos, sin; // times e^g
};
template <class R>
DEVICE Turned<R> turned(double log_a, double phase) {
  double sine, cosine;
  direction(phase, sine, cosine);
  const double size = exp(log_a);
  return {R(size * cosine), R(size * sine)};
}

template <class R>
DEVICE void turn(const TurnParams<R>& params) {
  const i64 row = i64(blockIdx.x) * TURN_ROWS + threadIdx.x / LANES;
  if (row >= params.rows) return;
  const Turned<R> by = turned<R>(params.log_a[row], params.phase[row]);
  const R* x = params.x + row * params.width;
  R* y = params.y + 2 * row * params.width;
  for (u32 c = threadIdx.x % LANES; c < params.width; c += LANES) {
    const R value = x[c];
    store_kept(y + c, value * by.cos);
    store_kept(y + params.width + c, value * by.sin);
  }
}

struct TurnShared {
  double sums[2][TURN_ROWS][LANES];
};

template <class R>
DEVICE void turn_adjoint(const TurnAdjointParams<R>& params) {
  SHARED(TurnShared, shared);
  const u32 lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  const i64 row = i64(blockIdx.x) * TURN_ROWS + warp;
  double along = 0, across = 0;
  if (row < params.rows) {
    const Turned<R> by = turned<R>(params.log_a[row], params.phase[row]);
    const R* x = params.x + row * params.width;
    const R* dy = params.dy + 2 * row * params.width;
    R* dx = params.dx + row * params.width;
    for (u32 c = lane; c < params.width; c += LANES) {
      const R value = x[c], re = dy[c], im = dy[params.width + c];
      const R back = fused(by.cos, re, by.sin * im);
      store_kept(dx + c, back);
      along += double(value) * double(back);
      across += double(value) * double(fused(by.cos, im, -(by.sin * re)));
    }
  }
  shared.sums[0][warp][lane] = along;
  shared.sums[1][warp][lane] = across;
  block_barrier();
  // Of each row four lanes for either sum, eight numbers each, and then one.
  if (lane < 8) {
    double* part = &shared.sums[lane / 4][warp][lane % 4 * 8];
    double sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += part[i];
    part[0] = sum;
  }
  block_barrier();
  if (lane < 2 && row < params.rows) {
    const double* part = shared.sums[lane][warp];
    store_kept((lane ? params.dphase : params.dlog_a) + row, part[0] + part[8] + part[16] + part[24]);
  }
}

KERNEL(HEADS_THREADS, 4) heads_turn_f32(const TurnParams<float> params) { turn(params); }
KERNEL(HEADS_THREADS, 4) heads_turn_f64(const TurnParams<double> params) { turn(params); }
KERNEL(HEADS_THREADS, 4) heads_turn_adjoint_f32(const TurnAdjointParams<float> params) { turn_adjoint(params); }
KERNEL(HEADS_THREADS, 4) heads_turn_adjoint_f64(const TurnAdjointParams<double> params) { turn_adjoint(params); }
