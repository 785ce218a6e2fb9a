// The norm on its way to a matrix product: in the kind that the product takes.
#include "rms_norm.cuh"

template <class E, class F>
struct RmsNormParams {
  const E* x;     // [rows, width]
  const E* gamma; // [width]
  F* y;           // [rows, width]
  i64 rows;
  u32 width, warps, kind, aligned; // warps: of a row
};

template <class E, class F, int N>
DEVICE void rms_norm(const RmsNormParams<E, F>& params, TeamSums<E, 1>& shared) {
  const Team team = Team::of(params.warps);
  const u32 width = params.width;
  const E scale = sqrt(E(width));
  // As often for all teams of a block: they meet at its barriers.
  for (i64 first = i64(blockIdx.x) * team.teams; first < params.rows; first += i64(gridDim.x) * team.teams) {
    const i64 row = first + team.number;
    const bool is_there = row < params.rows;
    E x[HELD], gamma[HELD], squares[1] = {E(0)};
    load_row<N>(team, is_there ? params.x + row * width : nullptr, width, x);
#pragma unroll
    for (int i = 0; i < HELD; i++) squares[0] = fused(x[i], x[i], squares[0]);
    sum_over(team, shared, squares);
    // Out of the first cache each time, for registers are what more warps would take.
    Team here = team;
    here.lane = u32(opaque(int(team.lane)));
    load_row<N, OFTEN>(here, params.gamma, width, gamma);
    const E by = scale * RowLength<E>::of(squares[0], params.kind).inverse;
#pragma unroll
    for (int i = 0; i < HELD; i++) x[i] = x[i] * by * gamma[i];
    if (is_there) leave_row<N>(team, params.y + row * width, width, x);
  }
}

template <class E, class F>
DEVICE void rms_norm(const RmsNormParams<E, F>& params) {
  using Sums = TeamSums<E, 1>;
  SHARED(Sums, shared);
  if (params.aligned) {
    rms_norm<E, F, 16 / int(sizeof(E))>(params, shared);
  } else {
    rms_norm<E, F, 1>(params, shared);
  }
}

#define RMS_NORM(name, E, F, blocks) \
  KERNEL(ROW_THREADS, blocks) name(const RmsNormParams<E, F> params) { rms_norm(params); }

RMS_NORM(rms_norm_f32, float, float, 4)
RMS_NORM(rms_norm_f32_bf16, float, bf16, 4)
RMS_NORM(rms_norm_f64, double, double, 2)
