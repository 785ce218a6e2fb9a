// The gradient of the fused operator. The states are computed again, from the checkpoints that the
// forward pass left (one for each tile here), so that training keeps nothing but q, k, v and z.
//
//   g[t] = q[t] dy[t] + f[t+1]   f[t] = conj(a[t]) g[t]     f[T] = dh_last
//   dq[t] = dy[t] Re(h[t])       d(kv)[t] = Re(g[t])        da[t] = g[t] conj(h[t-1])    dh0 = f[0]
//
// Tiles are those of the forward pass, taken from the last to the first. In a tile, warps are numbered
// in the order of this pass: warp 0 has the last positions. Within its positions each warp goes up
// once for both maps, then up for the states and down for the gradients. The look-back's warps find the
// state of the forward pass before each warp as well.
#pragma once
#include "gate.cuh"

template <class E, class Kind>
struct GateLoopAdjointParams {
  using State = typename Kind::template State<E>;
  using Z = typename Kind::template Gate<E>;
  View<const E> q, k, v;
  View<const Z> z;
  View<const E> dy;
  View<E> dq, dk, dv;
  View<Z> dz;
  const State* checkpoints; // the state before every tile, [B, chunks, C]
  const State* dh_last;     // [B, C], or null
  State* dh0;               // [B, C], or null
  Starts starts;
  Shape shape;
  u32 mode, has_h0;
};

// The maps of both directions: the backward one in the base, the forward one h -> conj(a) h + forward.
template <class S, int WARPS, int N>
struct BothMaps : Maps<S, WARPS, N> {
  S forward[WARPS][32 * N]; // in the end the state of the forward pass before each warp's positions
  u32 cut_forward[WARPS];
};

template <class E, class Kind, class G>
struct GateLoopAdjoint {
  using Tile = G;
  using Params = GateLoopAdjointParams<E, Kind>;
  using State = typename Params::State;
  using Z = typename Params::Z;
  using R = Wide<E>;
  static constexpr int N = G::LANE;
  static constexpr int ARRAY = G::POSITIONS * G::CHANNELS * int(sizeof(E));
  static constexpr int DY = ARRAY, K = 2 * ARRAY, V = 3 * ARRAY, GATE = (Kind::HAS_VALUE ? 4 : 3) * ARRAY;
  static constexpr int STAGE_BYTES = GATE + G::POSITIONS * G::CHANNELS * int(sizeof(Z));
  using M = BothMaps<State, G::WARPS, N>;
  using Decay = typename Kind::template Decay<R>;
  struct Kept {
    Decay decay[G::ROWS][N];
  };

  DEVICE static const State* initial(const Params& p) { return p.dh_last; }

  // The tile's place in the forward pass.
  DEVICE static Place in_memory(const Shape& shape, const Place& place) {
    Place forward = place;
    forward.chunk = shape.chunks - 1 - place.chunk;
    return forward;
  }
  DEVICE static int first_row(int warp) { return (G::WARPS - 1 - warp) * G::ROWS; }

  static constexpr bool ENDS_PLAIN = true;
  static constexpr int ARRAYS = 9;
  DEVICE static void locate(const Params& p, const Place& place, i64 start, const void* (&at)[ARRAYS], int&) {
    at[0] = tile_at(p.q, place, start);
    at[1] = tile_at(p.k, place, start);
    at[2] = Kind::HAS_VALUE ? tile_at(p.v, place, start) : nullptr;
    at[3] = tile_at(p.z, place, start);
    at[4] = tile_at(p.dy, place, start);
    at[5] = tile_at(p.dq, place, start);
    at[6] = tile_at(p.dk, place, start);
    at[7] = Kind::HAS_VALUE ? tile_at(p.dv, place, start) : nullptr;
    at[8] = tile_at(p.dz, place, start);
  }
  DEVICE static void stage(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, unsigned char* memory) {
    ::stage<Z, G>(memory + GATE, tile.at[3], p.z.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory, tile.at[0], p.q.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory + DY, tile.at[4], p.dy.row, shape, tile.place, tile.left);
    ::stage<E, G>(memory + K, tile.at[1], p.k.row, shape, tile.place, tile.left);
    if constexpr (Kind::HAS_VALUE) ::stage<E, G>(memory + V, tile.at[2], p.v.row, shape, tile.place, tile.left);
  }

  DEVICE static void read_values(const unsigned char* memory, int row, int lane, R (&k)[N], R (&v)[N]) {
    read_row<E, N>(memory + K, row, lane, k);
    if constexpr (Kind::HAS_VALUE) {
      read_row<E, N>(memory + V, row, lane, v);
    } else {
#pragma unroll
      for (int i = 0; i < N; i++) v[i] = R(0);
    }
  }

  DEVICE static void read_inputs(const unsigned char* memory, int row, int lane, Wide<Z> (&z)[N], R (&k)[N],
                                 R (&v)[N]) {
    read_row<Z, N>(memory + GATE, row, lane, z);
    read_values(memory, row, lane, k, v);
  }

  // Segments are looked up at the tile's place in the forward pass.
  DEVICE static i64 position_of(const Params& p, const Place& place, int row) {
    return i64(p.shape.chunks - 1 - place.chunk) * G::POSITIONS + row;
  }
  DEVICE static bool is_plain(const Params& p, const Place& forward) {
    return Kind::is_plain(p.mode) && !p.starts.at && forward.chunk > 0;
  }
  template <bool PLAIN>
  DEVICE static bool is_start(const Params& p, const Place& place, int row) {
    return !PLAIN && begins(p.starts, place.batch, position_of(p, place, row));
  }
  template <bool PLAIN>
  DEVICE static bool is_cut(const Params& p, const Place& place, int row) {
    if (PLAIN) return false;
    const i64 position = position_of(p, place, row);
    return begins(p.starts, place.batch, position) || (position == 0 && !p.has_h0);
  }

  // The state before the tile, of the forward pass.
  DEVICE static State entry(const Params& p, const Shape& shape, const Place& backward, int channel) {
    const i64 tile = i64(backward.batch) * shape.chunks + (shape.chunks - 1 - backward.chunk);
    const u32 at = backward.channel + channel;
    return at < shape.channels ? p.checkpoints[tile * shape.channels + at] : Constant<State>::zero();
  }
  DEVICE static void enter(M& maps, int channel, State h) {
#pragma unroll
    for (int w = G::WARPS - 1; w >= 0; w--) {
      const State after = apply(conj(maps.a[w][channel]), maps.forward[w][channel], maps.cut_forward[w] != 0, h);
      maps.forward[w][channel] = h;
      h = after;
    }
  }

  template <bool PLAIN>
  DEVICE static void map(const Params& p, const Taken<ARRAYS>& tile, const unsigned char* memory, M& maps, int warp,
                         int lane, Kept& kept) {
    const int first = first_row(warp);
    Map<State, N> back;
    back.reset();
    State forward[N];
#pragma unroll
    for (int i = 0; i < N; i++) forward[i] = Constant<State>::zero();
    bool cut_forward = false;
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      if (PLAIN || first + r < tile.left) { // rows behind the end change nothing
        Wide<Z> z[N];
        R k[N], v[N], q[N], dy[N];
        read_inputs(memory, first + r, lane, z, k, v);
        read_row<E, N>(memory, first + r, lane, q);
        read_row<E, N>(memory + DY, first + r, lane, dy);
        const bool cuts = is_cut<PLAIN>(p, tile.place, first + r);
        // Going up, the map so far is applied last: what lies behind a cut does not come through.
        back.cut = back.cut || is_start<PLAIN>(p, tile.place, first + r);
#pragma unroll
        for (int i = 0; i < N; i++) {
          kept.decay[r][i] = PLAIN ? Kind::decay(z[i]) : Kind::decay(z[i], p.mode);
          const State a = kept.decay[r][i].a;
          forward[i] = apply(a, Kind::of_real(Kind::HAS_VALUE ? k[i] * v[i] : k[i]), cuts, forward[i]);
          const State through = times(back.a[i], conj(a));
          const State x = fused(through, Kind::of_real(q[i] * dy[i]), back.x[i]);
          back.a[i] = through;
          back.x[i] = back.cut ? back.x[i] : x;
        }
        cut_forward = cut_forward || cuts;
      }
    }
    put(maps, warp, lane, back);
#pragma unroll
    for (int i = 0; i < N; i++) maps.forward[warp][lane + 32 * i] = forward[i];
    if (lane == 0) maps.cut_forward[warp] = cut_forward;
  }

  template <bool PLAIN>
  DEVICE static void emit(const Params& p, const Shape& shape, const Taken<ARRAYS>& tile, const unsigned char* memory,
                          const M& maps, int warp, int lane, const Kept& kept) {
    const int first = first_row(warp);
    const int last = first + G::ROWS - 1;
    State h[G::ROWS][N], up[N], f[N]; // h[r]: the state before row r
    state_before(maps.forward, warp, lane, up);
    state_before(maps.x, warp, lane, f);
    Rows<E, N> out_q(tile.at[5], p.dq.row, shape, tile.place, lane, first);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      R k[N], v[N], dy[N], dq[N];
      read_values(memory, first + r, lane, k, v);
      read_row<E, N>(memory + DY, first + r, lane, dy);
      const bool cuts = is_cut<PLAIN>(p, tile.place, first + r);
#pragma unroll
      for (int i = 0; i < N; i++) {
        const State x = Kind::of_real(Kind::HAS_VALUE ? k[i] * v[i] : k[i]);
        h[r][i] = up[i];
        up[i] = apply(kept.decay[r][i].a, x, cuts, up[i]);
        dq[i] = dy[i] * Kind::real(up[i]);
      }
      if (PLAIN || first + r < tile.left) out_q.write(dq);
    }
    Rows<E, N> out_k(tile.at[6], p.dk.row, shape, tile.place, lane, last, -1);
    Rows<E, N> out_v(tile.at[7], p.dv.row, shape, tile.place, lane, last, -1);
    Rows<Z, N> out_z(tile.at[8], p.dz.row, shape, tile.place, lane, last, -1);
#pragma unroll
    for (int r = G::ROWS - 1; r >= 0; r--) {
      if (!PLAIN && first + r >= tile.left) {
        out_k.skip(), out_v.skip(), out_z.skip();
      } else {
        Wide<Z> z[N], dz[N];
        R k[N], v[N], q[N], dy[N], dk[N], dv[N];
        read_inputs(memory, first + r, lane, z, k, v);
        read_row<E, N>(memory, first + r, lane, q);
        read_row<E, N>(memory + DY, first + r, lane, dy);
        const bool starts = is_start<PLAIN>(p, tile.place, first + r), alone = is_cut<PLAIN>(p, tile.place, first + r);
#pragma unroll
        for (int i = 0; i < N; i++) {
          const Decay& decay = kept.decay[r][i];
          const State g = plus(Kind::of_real(q[i] * dy[i]), f[i]);
          const R dkv = Kind::real(g);
          dk[i] = Kind::HAS_VALUE ? dkv * v[i] : dkv;
          dv[i] = dkv * k[i];
          const State da = alone ? Constant<State>::zero() : times(g, conj(h[r][i]));
          dz[i] = PLAIN ? Kind::decay_gradient(z[i], decay, da) : Kind::decay_gradient(z[i], decay, da, p.mode);
          f[i] = starts ? Constant<State>::zero() : times(conj(decay.a), g);
        }
        out_k.write(dk);
        if constexpr (Kind::HAS_VALUE) out_v.write(dv);
        out_z.write(dz);
        if (!PLAIN && p.dh0 && position_of(p, tile.place, first + r) == 0) write_state(p.dh0, shape, tile.place, lane, f);
      }
    }
  }
};

#define GATE_LOOP_ADJOINT(name, Kind, E, ...)                                                    \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                      \
  name(const GateLoopAdjointParams<E, Kind> params, const Workspace work) {                      \
    run_pass<GateLoopAdjoint<E, Kind, Geometry<__VA_ARGS__>>>(params, params.shape, work);       \
  }
