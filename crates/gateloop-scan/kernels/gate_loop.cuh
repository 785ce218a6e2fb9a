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
  u32 mode, checkpoint_len; // checkpoint_len divides the positions of a tile
};

template <class E, class Kind, class G>
struct GateLoop {
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

  DEVICE static const State* initial(const Params& p) { return p.h0; }

  DEVICE static void stage(const Params& p, const Shape& shape, const Place& place, unsigned char* memory) {
    ::stage<Z, G>(memory + GATE, p.z, shape, place, 0);
    ::stage<E, G>(memory + K, p.k, shape, place, 0);
    if constexpr (Kind::HAS_VALUE) ::stage<E, G>(memory + V, p.v, shape, place, 0);
    ::stage<E, G>(memory, p.q, shape, place, 0);
  }

  DEVICE static bool cut(const Params& p, const Place& place, i64 position) {
    return (position == 0 && !p.h0) || begins(p.starts, place.batch, position);
  }

  // The decay is computed once where it fits in the place of its pre-activation.
  static constexpr bool KEEPS_DECAY = sizeof(Z) == sizeof(State);

  DEVICE static void read_inputs(const unsigned char* memory, int row, int lane, State (&x)[N]) {
    R k[N], v[N];
    read_row<E, N>(memory + K, row, lane, k);
    if constexpr (Kind::HAS_VALUE) read_row<E, N>(memory + V, row, lane, v);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = Kind::input(k[i], Kind::HAS_VALUE ? v[i] : R(0));
  }
  DEVICE static void compute_decays(const Params& p, const unsigned char* memory, int row, int lane,
                                    State (&a)[N]) {
    Wide<Z> z[N];
    read_row<Z, N>(memory + GATE, row, lane, z);
#pragma unroll
    for (int i = 0; i < N; i++) a[i] = Kind::decay(z[i], p.mode).a;
  }

  DEVICE static void map(const Params& p, const Shape& shape, const Place& place, unsigned char* memory,
                         M& maps, int warp, int lane) {
    const int first = warp * G::ROWS;
    Map<State, N> map;
    map.reset();
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      State a[N], x[N];
      compute_decays(p, memory, first + r, lane, a);
      if constexpr (KEEPS_DECAY) replace_row<State, N>(memory + GATE, first + r, lane, a);
      read_inputs(memory, first + r, lane, x);
      const bool is_cut = cut(p, place, place.start + first + r);
#pragma unroll
      for (int i = 0; i < N; i++) map.then(i, a[i], x[i], is_cut);
      map.cut = map.cut || is_cut;
    }
    put(maps, warp, lane, map);
  }

  DEVICE static void checkpoint(const Params& p, const Shape& shape, const Place& place, i64 position, int lane,
                                const State (&h)[N]) {
    const i64 count = (shape.seqlen + p.checkpoint_len - 1) / p.checkpoint_len;
    State* to = p.checkpoints + (place.batch * count + position / p.checkpoint_len) * shape.channels;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const u32 channel = place.channel + lane * N + i;
      if (channel < shape.channels) to[channel] = h[i];
    }
  }

  DEVICE static void emit(const Params& p, const Shape& shape, const Place& place, const unsigned char* memory,
                          const M& maps, int warp, int lane) {
    const int first = warp * G::ROWS;
    // Rows until the next checkpoint; never reached where none are wanted.
    const int len = p.checkpoints ? int(p.checkpoint_len) : G::POSITIONS + 1;
    int until = p.checkpoints ? (len - first % len) % len : len;
    State h[N];
    state_before(maps, warp, lane, h);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      const i64 position = place.start + first + r;
      if (position >= shape.seqlen) return;
      if (until == 0) {
        checkpoint(p, shape, place, position, lane, h);
        until = len;
      }
      until--;
      State a[N], x[N];
      R q[N], y[N];
      if constexpr (KEEPS_DECAY) {
        read_row<State, N>(memory + GATE, first + r, lane, a);
      } else {
        compute_decays(p, memory, first + r, lane, a);
      }
      read_inputs(memory, first + r, lane, x);
      read_row<E, N>(memory, first + r, lane, q);
      const bool is_cut = cut(p, place, position);
#pragma unroll
      for (int i = 0; i < N; i++) {
        h[i] = apply(a[i], x[i], is_cut, h[i]);
        y[i] = Kind::output(q[i], h[i]);
      }
      write_row(p.y, shape, place, position, lane, y);
      if (p.h_last && position + 1 == shape.seqlen) write_state(p.h_last, shape, place, lane, h);
    }
  }
};

#define GATE_LOOP(name, Kind, E, ...)                                                            \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                      \
  name(const GateLoopParams<E, Kind> params, const Workspace work) {                             \
    run_pass<GateLoop<E, Kind, Geometry<__VA_ARGS__>>>(params, params.shape, work);              \
  }
