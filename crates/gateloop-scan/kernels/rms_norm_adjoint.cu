// The gradient of the norm, added to that of the shortcut around it.
//
// With u = x / length(x) and s = sqrt(d): dx = s / length (gamma dy - u (u . gamma dy)), and dgamma sums s u dy over rows.
#include "rms_norm.cuh"

template <class E, class F>
struct RmsNormAdjointParams {
  const E *x, *gamma;
  const F* dy;        // [rows, width]
  const E* dshortcut; // [rows, width], or null
  E* dx;              // [rows, width]
  E* dgamma;          // [blocks, width]: each block's part
  i64 rows;
  u32 width, warps, kind, aligned;
};

template <class E>
struct RmsNormAdjointShared {
  TeamSums<E, 2> sums;
  E dgamma[ROW_WARPS * 32 * HELD]; // [teams, width]
};

template <class E, class F, int N>
DEVICE void rms_norm_adjoint(const RmsNormAdjointParams<E, F>& params, RmsNormAdjointShared<E>& shared) {
  const Team team = Team::of(params.warps);
  const u32 width = params.width;
  const E scale = sqrt(E(width));
  E gamma[HELD], dgamma[HELD] = {};
  load_row<N, OFTEN>(team, params.gamma, width, gamma);
  for (i64 first = i64(blockIdx.x) * team.teams; first < params.rows; first += i64(gridDim.x) * team.teams) {
    const i64 row = first + team.number, at = row * width;
    const bool is_there = row < params.rows;
    E x[HELD], shortcut[HELD], sums[2] = {E(0), E(0)};
    Wide<F> dy[HELD];
    load_row<N>(team, is_there ? params.x + at : nullptr, width, x);
    load_row<N>(team, is_there ? params.dy + at : nullptr, width, dy);
    load_row<N>(team, is_there && params.dshortcut ? params.dshortcut + at : nullptr, width, shortcut);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      sums[0] = fused(x[i], x[i], sums[0]);
      sums[1] = fused(x[i], gamma[i] * dy[i], sums[1]);
    }
    sum_over(team, shared.sums, sums);
    const RowLength<E> length = RowLength<E>::of(sums[0], params.kind);
    const E along = length.turns ? length.inverse * sums[1] : E(0), by = scale * length.inverse;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const E u = x[i] * length.inverse, g = gamma[i] * dy[i];
      dgamma[i] = fused(scale * u, dy[i], dgamma[i]);
      x[i] = fused(by, fused(-u, along, g), shortcut[i]);
    }
    if (is_there) leave_row<N>(team, params.dx + at, width, x);
  }
  // Of the block's teams, in their order.
#pragma unroll
  for (int i = 0; i < HELD; i += N) {
    const u32 c = team.column<N>(i);
#pragma unroll
    for (int j = 0; j < N; j++) {
      if (c < width) shared.dgamma[team.number * width + c + j] = dgamma[i + j];
    }
  }
  block_barrier();
  for (u32 c = threadIdx.x; c < width; c += ROW_THREADS) {
    E sum = E(0);
    for (u32 of = 0; of < team.teams; of++) sum += shared.dgamma[of * width + c];
    store_kept(params.dgamma + i64(blockIdx.x) * width + c, sum);
  }
}

template <class E, class F>
DEVICE void rms_norm_adjoint(const RmsNormAdjointParams<E, F>& params) {
  SHARED(RmsNormAdjointShared<E>, shared);
  if (params.aligned) {
    rms_norm_adjoint<E, F, 16 / int(sizeof(E))>(params, shared);
  } else {
    rms_norm_adjoint<E, F, 1>(params, shared);
  }
}

#define RMS_NORM_ADJOINT(name, E, F, blocks) \
  KERNEL(ROW_THREADS, blocks) name(const RmsNormAdjointParams<E, F> params) { rms_norm_adjoint(params); }

RMS_NORM_ADJOINT(rms_norm_adjoint_f32, float, float, 2)
RMS_NORM_ADJOINT(rms_norm_adjoint_f32_bf16, float, bf16, 2)
RMS_NORM_ADJOINT(rms_norm_adjoint_f64, double, double, 1)
