// The gradient of the scan, from the last position of the pass to the first:
//
//   g[t] = dh[t] + f[t+1]     f[t] = conj(a[t]) g[t]     f[T] = dh_last
//   db[t] = g[t]              da[t] = g[t] conj(h[t-1])  dh0 = f[0]
//
// f is what a position hands to the one before; scanning it instead of g needs a[t] only, so that
// every array is read once. `u` counts positions from the last: t = T - 1 - u.
#include "pass.cuh"

template <class E>
struct ScanAdjointParams {
  View<const E> a, h, dh;
  View<E> da, db;
  const Wide<E>* h0;      // [B, C], or null for a state of zero
  const Wide<E>* dh_last; // [B, C], or null
  Wide<E>* dh0;           // [B, C], or null
  Starts starts;
  Shape shape;
};

// The same rows, last first.
template <class E>
DEVICE View<E> flipped(const View<E>& view, i64 seqlen) {
  return {view.at + (seqlen - 1) * view.row, view.batch, -view.row};
}

template <class E, class G>
struct ScanAdjoint {
  using Tile = G;
  using Params = ScanAdjointParams<E>;
  using State = Wide<E>;
  static constexpr int N = G::LANE;
  static constexpr int ARRAY = G::POSITIONS * G::CHANNELS * int(sizeof(E));
  static constexpr int STAGE_BYTES = 3 * ARRAY;
  using M = Maps<State, G::WARPS, N>;

  DEVICE static const State* initial(const Params& p) { return p.dh_last; }

  DEVICE static void stage(const Params& p, const Shape& shape, const Place& place, unsigned char* memory) {
    ::stage<E, G>(memory, flipped(p.a, shape.seqlen), shape, place, 0);
    ::stage<E, G>(memory + ARRAY, flipped(p.dh, shape.seqlen), shape, place, 0);
    // The state before position t is in row u + 1.
    ::stage<E, G>(memory + 2 * ARRAY, flipped(p.h, shape.seqlen), shape, place, 1);
  }

  // Nothing is handed on where a segment begins.
  DEVICE static bool cut(const Params& p, const Shape& shape, const Place& place, i64 u) {
    return begins(p.starts, place.batch, shape.seqlen - 1 - u);
  }

  DEVICE static void map(const Params& p, const Shape& shape, const Place& place, const unsigned char* memory,
                         M& maps, int warp, int lane) {
    const int first = warp * G::ROWS;
    Map<State, N> map;
    map.reset();
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      State a[N], dh[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, dh);
      const bool is_cut = cut(p, shape, place, place.start + first + r);
#pragma unroll
      for (int i = 0; i < N; i++) {
        const State back = is_cut ? Constant<State>::zero() : conj(a[i]);
        const State x = is_cut ? Constant<State>::zero() : times(conj(a[i]), dh[i]);
        map.then(i, back, x, is_cut);
      }
      map.cut = map.cut || is_cut;
    }
    put(maps, warp, lane, map);
  }

  DEVICE static void emit(const Params& p, const Shape& shape, const Place& place, const unsigned char* memory,
                          const M& maps, int warp, int lane) {
    const int first = warp * G::ROWS;
    const View<E> da = flipped(p.da, shape.seqlen), db = flipped(p.db, shape.seqlen);
    State f[N];
    state_before(maps, warp, lane, f);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      const i64 u = place.start + first + r;
      if (u >= shape.seqlen) return;
      State a[N], dh[N], h[N], g[N], grad[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, dh);
      const bool is_cut = cut(p, shape, place, u), is_first = u + 1 == shape.seqlen;
      if (is_first) {
#pragma unroll
        for (int i = 0; i < N; i++) h[i] = read_state(p.h0, shape, place, u32(lane * N + i));
      } else {
        read_row<E, N>(memory + 2 * ARRAY, first + r, lane, h);
      }
      const bool alone = is_cut || (is_first && !p.h0);
#pragma unroll
      for (int i = 0; i < N; i++) {
        g[i] = plus(dh[i], f[i]);
        grad[i] = alone ? Constant<State>::zero() : times(g[i], conj(h[i]));
        f[i] = is_cut ? Constant<State>::zero() : times(conj(a[i]), g[i]);
      }
      write_row(db, shape, place, u, lane, g);
      write_row(da, shape, place, u, lane, grad);
      if (is_first && p.dh0) write_state(p.dh0, shape, place, lane, f);
    }
  }
};

#define SCAN_ADJOINT(name, E, ...)                                                             \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                    \
  scan_adjoint_##name(const ScanAdjointParams<E> params, const Workspace work) {               \
    run_pass<ScanAdjoint<E, Geometry<__VA_ARGS__>>>(params, params.shape, work);               \
  }

SCAN_ADJOINT(f32, float, 7, 6, 2, 3, 2)
SCAN_ADJOINT(f64, double, 7, 6, 1, 3, 2)
SCAN_ADJOINT(c64, Complex<float>, 7, 6, 1, 3, 2)
SCAN_ADJOINT(c128, Complex<double>, 7, 3, 1, 3, 2)
SCAN_ADJOINT(bf16, bf16, 6, 7, 4, 3, 2)
SCAN_ADJOINT(f16, f16, 6, 7, 4, 3, 2)

// For devices that give a block 99 KB of shared memory.
SCAN_ADJOINT(f32_small, float, 7, 6, 1, 3, 2)
SCAN_ADJOINT(f64_small, double, 7, 5, 1, 3, 1)
SCAN_ADJOINT(c64_small, Complex<float>, 7, 5, 1, 3, 1)
SCAN_ADJOINT(c128_small, Complex<double>, 7, 2, 1, 3, 1)
SCAN_ADJOINT(bf16_small, bf16, 6, 7, 2, 3, 2)
SCAN_ADJOINT(f16_small, f16, 6, 7, 2, 3, 2)
