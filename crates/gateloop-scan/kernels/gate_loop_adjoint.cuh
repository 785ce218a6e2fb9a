// The gradient of the fused operator. The states are computed again, from the checkpoints that the
// forward pass left (one for each tile here), so that training keeps nothing but q, k, v and z.
//
//   g[t] = q[t] dy[t] + f[t+1]   f[t] = conj(a[t]) g[t]     f[T] = dh_last
//   dq[t] = dy[t] Re(h[t])       d(kv)[t] = Re(g[t])        da[t] = g[t] conj(h[t-1])    dh0 = f[0]
//
// Tiles are those of the forward pass, taken from the last to the first. In a tile, warps are numbered
// in the order of this pass: warp 0 has the last positions. Within its positions each warp goes up
// once for both maps, then up for the states and down for the gradients.
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

// The maps of both directions: the backward one in the base, the forward one conj(a), `forward`.
template <class S, int WARPS, int N>
struct BothMaps : Maps<S, WARPS, N> {
  S forward[WARPS][32 * N];
  S entry[32 * N]; // the state before the tile, of the forward pass
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

  DEVICE static const State* initial(const Params& p) { return p.dh_last; }

  // The tile's place in the forward pass.
  DEVICE static Place forward_place(const Shape& shape, const Place& place) {
    Place forward = place;
    forward.chunk = shape.chunks - 1 - place.chunk;
    forward.start = i64(forward.chunk) * G::POSITIONS;
    return forward;
  }
  DEVICE static int first_row(int warp) { return (G::WARPS - 1 - warp) * G::ROWS; }

  DEVICE static void stage(const Params& p, const Shape& shape, const Place& backward, unsigned char* memory) {
    const Place place = forward_place(shape, backward);
    ::stage<Z, G>(memory + GATE, p.z, shape, place, 0);
    ::stage<E, G>(memory, p.q, shape, place, 0);
    ::stage<E, G>(memory + DY, p.dy, shape, place, 0);
    ::stage<E, G>(memory + K, p.k, shape, place, 0);
    if constexpr (Kind::HAS_VALUE) ::stage<E, G>(memory + V, p.v, shape, place, 0);
  }

  DEVICE static void read_inputs(const unsigned char* memory, int row, int lane, Wide<Z> (&z)[N], R (&k)[N],
                                 R (&v)[N]) {
    read_row<Z, N>(memory + GATE, row, lane, z);
    read_row<E, N>(memory + K, row, lane, k);
    if constexpr (Kind::HAS_VALUE) {
      read_row<E, N>(memory + V, row, lane, v);
    } else {
#pragma unroll
      for (int i = 0; i < N; i++) v[i] = R(0);
    }
  }

  DEVICE static void map(const Params& p, const Shape& shape, const Place& backward, const unsigned char* memory,
                         M& maps, int warp, int lane) {
    const Place place = forward_place(shape, backward);
    const int first = first_row(warp);
    State entry[N];
    if (warp == 0) {
      const State* from = p.checkpoints + (i64(place.batch) * shape.chunks + place.chunk) * shape.channels;
#pragma unroll
      for (int i = 0; i < N; i++) {
        const u32 channel = place.channel + lane * N + i;
        entry[i] = channel < shape.channels ? from[channel] : Constant<State>::zero();
      }
    }
    Map<State, N> back;
    back.reset();
    State forward[N];
#pragma unroll
    for (int i = 0; i < N; i++) forward[i] = Constant<State>::zero();
    bool cut_forward = false;
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      const i64 position = place.start + first + r;
      if (position < shape.seqlen) { // rows behind the end change nothing
        Wide<Z> z[N];
        R k[N], v[N], q[N], dy[N];
        read_inputs(memory, first + r, lane, z, k, v);
        read_row<E, N>(memory, first + r, lane, q);
        read_row<E, N>(memory + DY, first + r, lane, dy);
        const bool is_start = begins(p.starts, place.batch, position);
        const bool is_cut = is_start || (position == 0 && !p.has_h0);
        // Going up, the map so far is applied last: what lies behind a cut does not come through.
        back.cut = back.cut || is_start;
#pragma unroll
        for (int i = 0; i < N; i++) {
          const State a = Kind::decay(z[i], p.mode).a;
          forward[i] = apply(a, Kind::input(k[i], v[i]), is_cut, forward[i]);
          const State through = times(back.a[i], conj(a));
          const State x = fused(through, Kind::of_real(q[i] * dy[i]), back.x[i]);
          back.a[i] = through;
          back.x[i] = back.cut ? back.x[i] : x;
        }
        cut_forward = cut_forward || is_cut;
      }
    }
    put(maps, warp, lane, back);
#pragma unroll
    for (int i = 0; i < N; i++) maps.forward[warp][lane + 32 * i] = forward[i];
    if (lane == 0) maps.cut_forward[warp] = cut_forward;
    if (warp == 0) {
#pragma unroll
      for (int i = 0; i < N; i++) maps.entry[lane + 32 * i] = entry[i];
    }
  }

  // The state of the forward pass with which a warp's positions begin.
  DEVICE static void state_entering(const M& maps, int warp, int lane, State (&h)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) h[i] = maps.entry[lane + 32 * i];
#pragma unroll
    for (int w = G::WARPS - 1; w > 0; w--) {
      if (w > warp) {
        const bool cut = maps.cut_forward[w] != 0;
#pragma unroll
        for (int i = 0; i < N; i++) {
          h[i] = apply(conj(maps.a[w][lane + 32 * i]), maps.forward[w][lane + 32 * i], cut, h[i]);
        }
      }
    }
  }

  DEVICE static void emit(const Params& p, const Shape& shape, const Place& backward, const unsigned char* memory,
                          const M& maps, int warp, int lane) {
    const Place place = forward_place(shape, backward);
    const int first = first_row(warp);
    typename Kind::template Decay<R> decay[G::ROWS][N];
    State h[G::ROWS + 1][N], f[N]; // h[r]: the state before row r
    state_entering(maps, warp, lane, h[0]);
    state_before(maps, warp, lane, f);
#pragma unroll
    for (int r = 0; r < G::ROWS; r++) {
      Wide<Z> z[N];
      R k[N], v[N];
      read_inputs(memory, first + r, lane, z, k, v);
      const i64 position = place.start + first + r;
      const bool is_cut = begins(p.starts, place.batch, position) || (position == 0 && !p.has_h0);
#pragma unroll
      for (int i = 0; i < N; i++) {
        decay[r][i] = Kind::decay(z[i], p.mode);
        h[r + 1][i] = apply(decay[r][i].a, Kind::input(k[i], v[i]), is_cut, h[r][i]);
      }
    }
#pragma unroll
    for (int r = G::ROWS - 1; r >= 0; r--) {
      const i64 position = place.start + first + r;
      if (position < shape.seqlen) {
        Wide<Z> z[N], dz[N];
        R k[N], v[N], q[N], dy[N], dq[N], dk[N], dv[N];
        read_inputs(memory, first + r, lane, z, k, v);
        read_row<E, N>(memory, first + r, lane, q);
        read_row<E, N>(memory + DY, first + r, lane, dy);
        const bool is_start = begins(p.starts, place.batch, position);
        const bool alone = is_start || (position == 0 && !p.has_h0);
#pragma unroll
        for (int i = 0; i < N; i++) {
          const State g = plus(Kind::of_real(q[i] * dy[i]), f[i]);
          const R dkv = Kind::real(g);
          dq[i] = dy[i] * Kind::real(h[r + 1][i]);
          dk[i] = Kind::HAS_VALUE ? dkv * v[i] : dkv;
          dv[i] = dkv * k[i];
          const State da = alone ? Constant<State>::zero() : times(g, conj(h[r][i]));
          dz[i] = Kind::decay_gradient(z[i], decay[r][i], da, p.mode);
          f[i] = is_start ? Constant<State>::zero() : times(conj(decay[r][i].a), g);
        }
        write_row(p.dq, shape, place, position, lane, dq);
        write_row(p.dk, shape, place, position, lane, dk);
        if constexpr (Kind::HAS_VALUE) write_row(p.dv, shape, place, position, lane, dv);
        write_row(p.dz, shape, place, position, lane, dz);
        if (p.dh0 && position == 0) write_state(p.dh0, shape, place, lane, f);
      }
    }
  }
};

#define GATE_LOOP_ADJOINT(name, Kind, E, ...)                                                    \
  KERNEL((Geometry<__VA_ARGS__>::THREADS), (Geometry<__VA_ARGS__>::BLOCKS))                      \
  name(const GateLoopAdjointParams<E, Kind> params, const Workspace work) {                      \
    run_pass<GateLoopAdjoint<E, Kind, Geometry<__VA_ARGS__>>>(params, params.shape, work);       \
  }
