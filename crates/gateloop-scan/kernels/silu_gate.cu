// What a layer reads out, gated: y silu(g), and the way back. The gates lie in rows of their own, among other projections.
#include "gate.cuh"
#include "rows.cuh"

template <class E>
struct SiluGateParams {
  const E* y;     // [rows, width]
  const E* gates; // [rows, width], `gates_row` apart
  E* gated;       // [rows, width]
  i64 gates_row, rows;
  u32 width, aligned;
};

template <class E>
struct SiluGateAdjointParams {
  const E *y, *gates, *dgated; // [rows, width]
  E* dy;
  E* dgates; // [rows, width], `dgates_row` apart
  i64 gates_row, dgates_row, rows;
  u32 width, aligned;
};

// A warp has a row.
DEVICE i64 row_of_warp() { return i64(blockIdx.x) * ROW_WARPS + threadIdx.x / 32; }

template <class E, int N>
DEVICE void silu_gate(const SiluGateParams<E>& params) {
  using R = Wide<E>;
  const i64 row = row_of_warp(), at = row * params.width;
  if (row >= params.rows) return;
  for (u32 c = threadIdx.x % 32 * N; c < params.width; c += 32 * N) {
    R y[N], g[N];
    load_elements<E, N>(params.y + at + c, y);
    load_elements<E, N>(params.gates + row * params.gates_row + c, g);
#pragma unroll
    for (int i = 0; i < N; i++) y[i] *= g[i] * sigmoid(g[i]);
    leave_elements<E, N>(params.gated + at + c, y);
  }
}

template <class E, int N>
DEVICE void silu_gate_adjoint(const SiluGateAdjointParams<E>& params) {
  using R = Wide<E>;
  const i64 row = row_of_warp(), at = row * params.width;
  if (row >= params.rows) return;
  for (u32 c = threadIdx.x % 32 * N; c < params.width; c += 32 * N) {
    R y[N], g[N], d[N];
    load_elements<E, N>(params.y + at + c, y);
    load_elements<E, N>(params.gates + row * params.gates_row + c, g);
    load_elements<E, N>(params.dgated + at + c, d);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const R open = sigmoid(g[i]), through = d[i] * y[i];
      y[i] = d[i] * g[i] * open;
      g[i] = through * open * fused(g[i], R(1) - open, R(1));
    }
    leave_elements<E, N>(params.dy + at + c, y);
    leave_elements<E, N>(params.dgates + row * params.dgates_row + c, g);
  }
}

#define SILU_GATE(name, E)                                                                        \
  KERNEL(ROW_THREADS, 4) silu_gate_##name(const SiluGateParams<E> params) {                       \
    if (params.aligned) silu_gate<E, 16 / int(sizeof(E))>(params); else silu_gate<E, 1>(params);  \
  }                                                                                               \
  KERNEL(ROW_THREADS, 4) silu_gate_adjoint_##name(const SiluGateAdjointParams<E> params) {        \
    if (params.aligned) silu_gate_adjoint<E, 16 / int(sizeof(E))>(params);                        \
    else silu_gate_adjoint<E, 1>(params);                                                         \
  }

SILU_GATE(f32, float)
SILU_GATE(f64, double)
SILU_GATE(bf16, bf16)
SILU_GATE(f16, f16)
