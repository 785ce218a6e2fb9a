// The fused operator: gate, scan and readout in one pass over q, k, v and z.
#pragma once
#include "gate.cuh"

template <class E, class Kind>
struct GateLoopParams {
  using State = typename Kind::template State<E>;
  View<const E> q, k, v;
  View<const typename Kind::template Gate<E>> z;
  View<E> y;
  const State* h0;    // [B, C], or null for a state of zero
  State* h_last;      // [B, C], or null
  State* checkpoints; // the state before every checkpoint_len-th position, [B, n, C], or null
  Starts starts;
  Shape shape;
  u32 mode, checkpoint_len; // checkpoint_len is at least ROWS
};

template <class E, class Kind, class G>
struct GateLoop : OneWay {
  using Tile = G;
  using Params = GateLoopParams<E, Kind>;
  using State = typename Params::State;
  using Z = typename Kind::template Gate<E>;
  using R = Wide<E>;
  static constexpr int N = G::LANE;
  static constexpr int ARRAY = G::POSITIONS * G::CHANNELS * int(sizeof(E));
  static constexpr int K = ARRAY, V = 2 * ARRAY, GATE = (Kind::HAS_VALUE ? 3 : 2) * ARRAY;
  static constexpr int STAGE_BYTES = GATE + G::POSITIONS * G::CHANNELS * int(sizeof(Z));
  using M = Maps<State, G::WARPS, N>;

  // Of each element, in registers from `map` to `emit`.
  struct Kept {
    State a[G::ROWS][N];
    R x[G::ROWS][N];
  };

  DEVICE static const State* initial(const Params& p) { return p.h0; }

  static constexpr bool ENDS_PLAIN = true;
  static constexpr int ARRAYS = 6;
  DEVICE static void locate(const Params& p, const Place& place, i64 start, const void* (&at)[ARRAYS],
                            int& first_checkpoint) {
    at[0] = tile_at(p.q, place, start);
    at[1] = tile_at(p.k, place, start);
    at[2] = Kind::HAS_VALUE ? tile_at(p.v, place, start) : nullptr;
    at[3] = tile_at(p.z, place, start);
    at[4] = tile_at(p.y, place, start);
    at[5] = nullptr;
    if (p.checkpoints) {
      const i64 len = p.checkpoint_len, count = (p.shape.seqlen + len - 1) / len, index = (start + len - 1) / len;
      at[5] = p.checkpoints + (place.batch * count + index) * p.shape.channels + place.channel;
      first_checkpoint = int(index * len - start);
    }
  }
  DEVICE static void stage(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, unsigned char* memory) {
    ::stage<Z, G>(memory + GATE, tile.at[3], p.z.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory + K, tile.at[1], p.k.row, shape, tile.place, tile.left);
    if constexpr (Kind::HAS_VALUE) ::stage<E, G>(memory + V, tile.at[2], p.v.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory, tile.at[0], p.q.row, shape, tile.place, tile.left);
  }

  DEVICE static bool cut(const Params& p, const Place& place, int row) {
    const i64 position = G::start(place) + row;
    return (position == 0 && !p.h0) || begins(p.starts, place.batch, position);
  }
  DEVICE static bool is_plain(const Params& p, const Place& place) {
    return Kind::is_plain(p.mode) && !p.starts.at && (place.chunk > 0 || p.h0);
  }

  template <bool PLAIN>
  DEVICE static void map(const Params& p, const Taken<ARRAYS>& tile, const unsigned char* memory, M& maps, int warp,
                         int lane, Kept& kept) {
    const int first = warp * G::ROWS;
    Map<State, N> map;
    map.reset();
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      Wide<Z> z[N];
      R k[N], v[N];
      read_row<Z, N>(memory + GATE, first + r, lane, z);
      read_row<E, N>(memory + K, first + r, lane, k);
      if constexpr (Kind::HAS_VALUE) read_row<E, N>(memory + V, first + r, lane, v);
      const bool is_cut = !PLAIN && cut(p, tile.place, first + r);
#pragma unroll
      for (int i = 0; i < N; i++) {
        kept.a[r][i] = PLAIN ? Kind::decay(z[i]).a : Kind::decay(z[i], p.mode).a;
        kept.x[r][i] = Kind::HAS_VALUE ? k[i] * v[i] : k[i];
        map.then(i, kept.a[r][i], Kind::of_real(kept.x[r][i]), is_cut);
      }
      map.cut = map.cut || is_cut;
    }
    put(maps, warp, lane, map);
  }

  // The state before a row that has number `index` of the tile's checkpoints.
  DEVICE static void checkpoint(const Params& p, const Taken<ARRAYS>& tile, int index, int lane, const State (&h)[N]) {
    State* to = static_cast<State*>(const_cast<void*>(tile.at[5])) + i64(index) * p.shape.channels;
    const int left = int(p.shape.channels - tile.place.channel);
#pragma unroll
    for (int i = 0; i < N; i++) {
      if (lane * N + i < left) to[lane * N + i] = h[i];
    }
  }

  template <bool PLAIN>
  DEVICE static void emit(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, const unsigned char* memory,
                          const M& maps, int warp, int lane, const Kept& kept) {
    const int first = warp * G::ROWS;
    Rows<E, N> out(tile.at[4], p.y.row, shape, tile.place, lane, first);
    State h[N];
    state_before(maps.x, warp, lane, h);
    // The next checkpoint: which of the tile, and how many rows of this warp come before it.
    int index = 0, until = G::ROWS;
    if (tile.at[5]) {
      until = tile.first_checkpoint - first;
      for (; until < 0; index++) until += int(p.checkpoint_len);
    }
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      if (!PLAIN && first + r >= tile.left) return;
      if (until == r) checkpoint(p, tile, index, lane, h);
      R q[N], y[N];
      read_row<E, N>(memory, first + r, lane, q);
      const bool is_cut = !PLAIN && cut(p, tile.place, first + r);
#pragma unroll
      for (int i = 0; i < N; i++) {
        h[i] = apply(kept.a[r][i], Kind::of_real(kept.x[r][i]), is_cut, h[i]);
        y[i] = q[i] * Kind::real(h[i]);
      }
      out.write(y);
      if (!PLAIN && p.h_last && first + r + 1 == tile.left) write_state(p.h_last, shape, tile.place, lane, h);
    }
    if (PLAIN && p.h_last && first + G::ROWS == tile.left) write_state(p.h_last, shape, tile.place, lane, h);
  }
};

#define GATE_LOOP(name, Kind, E, ...)                                                            \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                      \
  name(const GateLoopParams<E, Kind> params, const Workspace work) {                             \
    run_pass<GateLoop<E, Kind, Geometry<__VA_ARGS__>>>(params, params.shape, work);              \
  }
