// How a tile learns the state before it: decoupled look-back with a fixed order of operations.
//
// After Merrill and Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back" (2016). A tile
// publishes its own affine map at once and the state behind it as soon as it has it. A later tile looks
// for the nearest published state among the 32 tiles before it and applies the maps in between to it,
// first to last. Theirs folds whatever it meets, so that rounding depends on timing; here every tile
// computes the state behind tile j from the state behind j - 1 with the same operation, so that the
// result is bit-equal whatever the schedule.
#pragma once
#include "record.cuh"

// Zeroed once, when it is allocated; every launch leaves it ready for the next one of its stream.
struct Control {
  u32 ticket, done, epoch, unused;
};
struct Workspace {
  Control* control;
  Word* records; // [columns, chunks, words, channels of a tile]
  u64 capacity;  // words in `records`
};

// h -> a h + x, or h -> x where the map is cut. Selected, so that a NaN before the cut stays there.
template <class S>
DEVICE S apply(S a, S x, bool cut, S h) {
  const S through = fused(a, h, x);
  return cut ? x : through;
}

// The search for the state before a tile, by one warp for one of the LANE channels of every lane.
template <class S, int CHANNELS>
struct LookBack {
  using R = Record<S>;
  static constexpr int TILE = R::WORDS * CHANNELS;
  // Records fetched at once, so that their latencies overlap.
  static constexpr int BATCH = 8 / R::WORDS < 1 ? 1 : 8 / R::WORDS;

  Word* own; // this lane's words of the tile's record
  u32 epoch, chunk;
  int lane;

  DEVICE LookBack(Word* records, const Shape& shape, const Place& place, u32 epoch_, int channel, int lane_)
      : own(records + (i64(place.column) * shape.chunks + place.chunk) * TILE + channel),
        epoch(epoch_),
        chunk(place.chunk),
        lane(lane_) {}

  // One trip to the L2 cache: the tile before this one by this lane's channel (in the common case its
  // state is there, for all lanes), and the l-th tile before this one by the first lane's channel.
  // Returns how many tiles lie between this one and the nearest state, 0 with `h` if that is the tile
  // before; or -1 if some map in between is not there yet, or no state within reach.
  DEVICE int probe(S& h) const {
    R before, watched;
    before.load(own - TILE, CHANNELS, epoch);
    watched.has_map = watched.has_state = false;
    if (lane < int(chunk)) watched.load(own - lane - i64(lane + 1) * TILE, CHANNELS, epoch);
    if (warp_vote(before.has_state) == 0xffffffffu) {
      h = before.h;
      return 0;
    }
    const u32 states = warp_vote(watched.has_state), maps = warp_vote(watched.has_map);
    if (states <= 1) return -1;
    const int between = __ffs(int(states & ~1u)) - 1;
    const u32 nearer = (1u << between) - 1;
    return (maps & nearer) == nearer ? between : -1;
  }

  // The state before this tile, once `probe` has found one further back. The other lanes' words may still be on
  // their way: each is waited for by its tag.
  DEVICE S fetch(int between) const {
#ifdef OBSERVE_DISTANCE
    if (lane == 0) OBSERVE_DISTANCE(between);
#endif
    R state;
    state.has_state = false;
    S h = Constant<S>::zero();
#pragma unroll 1
    do {
      R record[BATCH];
      bool all, known = state.has_state;
      do {
        all = true;
        if (!known) {
          state.load(own - i64(between + 1) * TILE, CHANNELS, epoch);
          all = state.has_state;
        }
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
          if (j < between) {
            record[j].load(own - i64(between - j) * TILE, CHANNELS, epoch);
            all = all && record[j].has_map;
          }
        }
      } while (warp_vote(all) != 0xffffffffu);
      if (!known) h = state.h;
#pragma unroll
      for (int j = 0; j < BATCH; j++) {
        if (j < between) h = apply(record[j].a, record[j].x, record[j].cut, h);
      }
      between -= BATCH;
    } while (between > 0);
    return h;
  }
};
