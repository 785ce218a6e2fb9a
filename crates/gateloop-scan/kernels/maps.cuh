// The affine maps of the warps of a block, and their composition.
#pragma once
#include "lookback.cuh"

// The map of each warp's positions. Channel i of lane l is at `32 * i + l`, so that a warp's accesses
// fall into different banks.
template <class S, int WARPS, int N>
struct Maps {
  S a[WARPS][32 * N];
  S x[WARPS][32 * N]; // in the end the state with which each warp's positions begin
  u32 cut[WARPS];
};

// A map under construction: h -> a h + x, the identity before the first `then`.
template <class S, int N>
struct Map {
  S a[N], x[N];
  bool cut;

  DEVICE void reset() {
#pragma unroll
    for (int i = 0; i < N; i++) {
      a[i] = Constant<S>::one();
      x[i] = Constant<S>::zero();
    }
    cut = false;
  }
  // Follows channel i of this map by h -> next_a h + next_x.
  DEVICE void then(int i, S next_a, S next_x, bool next_cut) {
    x[i] = apply(next_a, next_x, next_cut, x[i]);
    a[i] = times(next_a, a[i]);
  }
};

template <class S, int WARPS, int N>
DEVICE void put(Maps<S, WARPS, N>& maps, int warp, int lane, const Map<S, N>& map) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    maps.a[warp][lane + 32 * i] = map.a[i];
    maps.x[warp][lane + 32 * i] = map.x[i];
  }
  if (lane == 0) maps.cut[warp] = map.cut;
}

// The state with which a warp's positions begin.
template <class S, int WARPS, int N>
DEVICE void state_before(const S (&before)[WARPS][32 * N], int warp, int lane, S (&h)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) h[i] = before[warp][lane + 32 * i];
}

// Leaves these states in the place of x, for one channel of a tile that begins with the state h.
template <class S, int WARPS, int N>
DEVICE void put_states(Maps<S, WARPS, N>& maps, int channel, S h) {
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    const S after = apply(maps.a[w][channel], maps.x[w][channel], maps.cut[w] != 0, h);
    maps.x[w][channel] = h;
    h = after;
  }
}

// The map of all warps' positions, for one channel of the tile.
template <class S, int WARPS, int N>
DEVICE Affine<S> compose(const Maps<S, WARPS, N>& maps, int channel) {
  Affine<S> tile = Affine<S>::identity();
#pragma unroll
  for (int w = 0; w < WARPS; w++) tile.then({maps.a[w][channel], maps.x[w][channel], maps.cut[w] != 0});
  return tile;
}
