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
struct ScanAdjoint : OneWay {
  using Tile = G;
  using Params = ScanAdjointParams<E>;
  using State = Wide<E>;
  static constexpr int N = G::LANE;
  static constexpr int ARRAY = G::POSITIONS * G::CHANNELS * int(sizeof(E));
  static constexpr int STAGE_BYTES = 3 * ARRAY;
  using M = Maps<State, G::WARPS, N>;

  DEVICE static const State* initial(const Params& p) { return p.dh_last; }

  static constexpr bool ENDS_PLAIN = false; // the position before the first is the initial state's
  static constexpr int ARRAYS = 5;
  DEVICE static void locate(const Params& p, const Place& place, i64 start, const void* (&at)[ARRAYS], int&) {
    const i64 seqlen = p.shape.seqlen;
    at[0] = tile_at(flipped(p.a, seqlen), place, start);
    at[1] = tile_at(flipped(p.dh, seqlen), place, start);
    // The state before position t is in row u + 1.
    at[2] = tile_at(flipped(p.h, seqlen), place, start + 1);
    at[3] = tile_at(flipped(p.da, seqlen), place, start);
    at[4] = tile_at(flipped(p.db, seqlen), place, start);
  }
  DEVICE static void stage(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, unsigned char* memory) {
    ::stage<E, G>(memory, tile.at[0], -p.a.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory + ARRAY, tile.at[1], -p.dh.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory + 2 * ARRAY, tile.at[2], -p.h.row, shape, tile.place, tile.left - 1);
  }

  // Nothing is handed on where a segment begins.
  DEVICE static bool cut(const Params& p, const Place& place, int row) {
    return begins(p.starts, place.batch, p.shape.seqlen - 1 - (G::start(place) + row));
  }
  DEVICE static bool is_plain(const Params& p, const Place&) { return !p.starts.at; }

  template <bool PLAIN>
  DEVICE static void map(const Params& p, const Taken<ARRAYS>& tile, const unsigned char* memory, M& maps, int warp,
                         int lane, Nothing&) {
    const int first = warp * G::ROWS;
    Map<State, N> map;
    map.reset();
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      State a[N], dh[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, dh);
      const bool is_cut = !PLAIN && cut(p, tile.place, first + r);
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

  template <bool PLAIN>
  DEVICE static void emit(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, const unsigned char* memory,
                          const M& maps, int warp, int lane, const Nothing&) {
    const int first = warp * G::ROWS;
    Rows<E, N> da(tile.at[3], -p.da.row, shape, tile.place, lane, first);
    Rows<E, N> db(tile.at[4], -p.db.row, shape, tile.place, lane, first);
    State f[N];
    state_before(maps.x, warp, lane, f);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      if (!PLAIN && first + r >= tile.left) return;
      State a[N], dh[N], h[N], g[N], grad[N];
      read_row<E, N>(memory, first + r, lane, a);
      read_row<E, N>(memory + ARRAY, first + r, lane, dh);
      const bool is_cut = !PLAIN && cut(p, tile.place, first + r), is_first = !PLAIN && first + r + 1 == tile.left;
      if (is_first) {
#pragma unroll
        for (int i = 0; i < N; i++) h[i] = read_state(p.h0, shape, tile.place, u32(lane * N + i));
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
      db.write(g);
      da.write(grad);
      if (is_first && p.dh0) write_state(p.dh0, shape, tile.place, lane, f);
    }
  }
};

#define SCAN_ADJOINT(name, E, ...)                                                             \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                    \
  scan_adjoint_##name(const ScanAdjointParams<E> params, const Workspace work) {               \
    run_pass<ScanAdjoint<E, Geometry<__VA_ARGS__>>>(params, params.shape, work);               \
  }

SCAN_ADJOINT(f32, float, 13, 7, 2, 3, 1)
SCAN_ADJOINT(f64, double, 13, 7, 1, 3, 1)
SCAN_ADJOINT(c64, Complex<float>, 13, 7, 1, 3, 1)
SCAN_ADJOINT(c128, Complex<double>, 13, 3, 1, 3, 1)
SCAN_ADJOINT(bf16, bf16, 11, 8, 4, 3, 1)
SCAN_ADJOINT(f16, f16, 11, 8, 4, 3, 1)

// For so few columns that blocks wait for each other: fewer tiles in a column, and more columns.
SCAN_ADJOINT(f32_tall, float, 14, 12, 1, 3, 1)

// For short sequences, such as the states at the ends of chunks.
SCAN_ADJOINT(f32_short, float, 4, 4, 2, 5, 2)
SCAN_ADJOINT(c64_short, Complex<float>, 4, 4, 1, 4, 3)

// For devices that give a block less shared memory: two of these blocks take 164 KB, one 82.
SCAN_ADJOINT(f32_small, float, 5, 6, 2, 3, 2)
SCAN_ADJOINT(f64_small, double, 6, 5, 1, 3, 2)
SCAN_ADJOINT(c64_small, Complex<float>, 6, 5, 1, 3, 2)
SCAN_ADJOINT(c128_small, Complex<double>, 6, 2, 1, 3, 2)
SCAN_ADJOINT(bf16_small, bf16, 5, 12, 2, 3, 2)
SCAN_ADJOINT(f16_small, f16, 5, 12, 2, 3, 2)
