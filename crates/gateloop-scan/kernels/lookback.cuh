// How a tile learns the state before it: decoupled look-back with a fixed order of operations.
//
// After Merrill and Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back" (2016). A tile
// publishes its own affine map at once and looks back for what earlier tiles have published. Theirs
// folds whatever it meets, so that rounding depends on timing. Here the tiles of a column fall into
// groups of GROUP, and every sum has one order:
//
//   prefix[n] = map[n] o prefix[n-1]     within a group, the first of which has prefix = map
//   state[i+1] = prefix[last of i] (state[i])      the state before group i + 1
//   before[n] = prefix[n-1] (state[i])             the state before tile n of group i
//
// so that the result is bit-equal whatever the schedule. The maps of a group can be composed before
// its state is known; only states wait for each other, and a search for them reaches 32 groups back.
#pragma once
#include "record.cuh"

constexpr int GROUP = 16;

// Zeroed once, when it is allocated; every launch leaves it ready for the next one of its stream.
struct Control {
  u32 ticket, done, epoch, unused;
};
struct Workspace {
  Control* control;
  Word* records; // tiles [columns, chunks, words, channels], then groups [columns, groups, words, channels]
  u64 capacity;  // words in `records`
};

// h -> a h + x, or h -> x where the map is cut. Selected, so that a NaN before the cut stays there.
template <class S>
DEVICE S apply(S a, S x, bool cut, S h) {
  const S through = fused(a, h, x);
  return cut ? x : through;
}

template <class S>
struct Affine {
  S a, x;
  bool cut;

  DEVICE static Affine identity() { return {Constant<S>::one(), Constant<S>::zero(), false}; }
  // Follows this map by `next`.
  DEVICE void then(const Affine& next) {
    x = apply(next.a, next.x, next.cut, x);
    a = times(next.a, a);
    cut = cut || next.cut;
  }
  DEVICE S operator()(S h) const { return apply(a, x, cut, h); }
};

// The search of one warp, a channel a lane.
template <class S, int CHANNELS>
struct LookBack {
  using Tile = Record<S, 2>;      // MAP: the tile's map; WHOLE: its prefix
  using GroupMap = Record<S, 2>;  // MAP: prefix of the group's last tile
  using GroupState = Record<S, 1>; // WHOLE: the state before the group
  static constexpr int TILE = Tile::WORDS * CHANNELS;
  static constexpr int STATE = GroupMap::WORDS * CHANNELS; // the state lies behind the map
  static constexpr int GROUP_WORDS = STATE + GroupState::WORDS * CHANNELS;
  // Records fetched at once, so that their latencies overlap.
  static constexpr int BATCH = 6 / Tile::WORDS;

  Word *tile, *group; // this lane's words of the tile and of its group
  S initial;          // the state before the first tile
  u32 epoch;
  int in_group, groups_before, lane;

  DEVICE LookBack(Word* records, const Shape& shape, const Place& place, S initial_, u32 epoch_, int channel,
                  int lane_)
      : initial(initial_), epoch(epoch_), lane(lane_) {
    const u32 groups = (shape.chunks + GROUP - 1) / GROUP;
    const i64 tiles = i64(shape.columns) * shape.chunks;
    in_group = place.chunk % GROUP;
    groups_before = place.chunk / GROUP;
    tile = records + (i64(place.column) * shape.chunks + place.chunk) * TILE + channel;
    group = records + tiles * TILE + (i64(place.column) * groups + groups_before) * GROUP_WORDS + channel;
  }

  DEVICE u32 tag(u32 kind, bool cut) const { return epoch * 8 + (cut ? CUT | kind : kind); }
  DEVICE void publish_group(const Affine<S>& m) const { GroupMap::store(group, CHANNELS, {m.a, m.x}, tag(MAP, m.cut)); }
  DEVICE void publish_next_state(S h) const { GroupState::store(group + GROUP_WORDS + STATE, CHANNELS, {h}, tag(WHOLE, false)); }

  // How many tiles lie between here and the nearest that is whole, if all of them have their maps; or -1.
  // Bit l of both stands for the tile l + 1 back.
  DEVICE static int nearest(u32 whole, u32 maps) {
    if (whole == 0) return -1;
    const int between = __ffs(int(whole)) - 1;
    const u32 nearer = (1u << between) - 1;
    return (maps & nearer) == nearer ? between : -1;
  }

  // Publishes the tile's map, then finds the prefix of the tile before in the same group, if there is
  // one, publishes the tile's own, and finds the state before the group, if it is not the first (not for
  // the last tile of a group: `state_before` is for that). One trip to the L2 cache asks for all that may
  // be there: in the common case the tile before is done, for all lanes, and so is the group before.
  DEVICE void search(const Affine<S>& own, bool publishes, bool wants_state, Affine<S>& before, S& h) const {
    bool has_prefix = in_group == 0, has_state = groups_before == 0 || !wants_state;
    if (publishes) Tile::store(tile, CHANNELS, {own.a, own.x}, tag(has_prefix ? WHOLE : MAP, own.cut));
    while (!has_prefix || !has_state) {
      Tile nearby;
      GroupState state;
      u32 seen = 0;
      nearby.tag = 0;
      state.tag = 0;
      if (!has_state) state.load(group + STATE, CHANNELS, epoch);
      if (!has_prefix) {
        nearby.load(tile - TILE, CHANNELS, epoch);
        if (lane < in_group) seen = glance(tile - lane - i64(lane + 1) * TILE, epoch);
      }
      if (!has_state && warp_vote(state.tag != 0) == 0xffffffffu) {
        h = state.number[0];
        has_state = true;
      }
      if (has_prefix) continue;
      if (warp_vote((nearby.tag & WHOLE) != 0) == 0xffffffffu) {
        before = {nearby.number[0], nearby.number[1], (nearby.tag & CUT) != 0};
      } else {
        const int between = nearest(warp_vote((seen & WHOLE) != 0), warp_vote(seen != 0));
        if (between <= 0) continue;
        before = compose_from(between);
      }
      has_prefix = true;
      if (publishes) {
        Affine<S> prefix = before;
        prefix.then(own);
        Tile::store(tile, CHANNELS, {prefix.a, prefix.x}, tag(WHOLE, prefix.cut));
      }
    }
  }

  // The prefix of the tile `between + 1` back, followed by the maps of the tiles in between.
  DEVICE Affine<S> compose_from(int between) const {
    Affine<S> prefix = Affine<S>::identity();
#pragma unroll 1
    for (int back = between + 1; back > 0; back -= BATCH) {
      Tile record[BATCH];
      bool all;
      do { // the other lanes' words may still be on their way
        all = true;
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
          if (j < back) {
            record[j].load(tile - i64(back - j) * TILE, CHANNELS, epoch);
            all = all && record[j].tag != 0 && (j > 0 || back <= between || (record[j].tag & WHOLE));
          }
        }
      } while (warp_vote(all) != 0xffffffffu);
#pragma unroll
      for (int j = 0; j < BATCH; j++) {
        if (j < back) {
          const Affine<S> m = {record[j].number[0], record[j].number[1], (record[j].tag & CUT) != 0};
          // A prefix that has come meanwhile equals what would be composed.
          if (record[j].tag & WHOLE) prefix = m;
          else prefix.then(m);
        }
      }
    }
    return prefix;
  }

  // The state before the tile's group, which is not the first, from further back: for the last tile of
  // a group, which the next group waits for.
  DEVICE S state_before() const {
    int between;
    while (true) {
      GroupState own;
      own.load(group + STATE, CHANNELS, epoch);
      // Lane l: the state before the l-th group back, and the map of the one after that.
      u32 state = 0, map = 0;
      if (lane < groups_before) {
        const Word* at = group - lane - i64(lane + 1) * GROUP_WORDS;
        state = glance(at + STATE, epoch);
        map = glance(at, epoch);
      }
      if (warp_vote(own.tag != 0) == 0xffffffffu) return own.number[0];
      // The state before the first group is known to all, but nobody publishes it.
      const bool is_first = lane + 1 == groups_before;
      const u32 states = warp_vote(state != 0 || is_first), maps = warp_vote(map != 0);
      if (states == 0) continue;
      between = __ffs(int(states));
      const u32 needed = between == 32 ? 0xffffffffu : (1u << between) - 1;
      if ((maps & needed) == needed) break;
    }
    S h = Constant<S>::zero();
    const bool from_first = between == groups_before;
    if (from_first) {
      h = initial;
    } else {
      GroupState from;
      do from.load(group - i64(between) * GROUP_WORDS + STATE, CHANNELS, epoch);
      while (warp_vote(from.tag != 0) != 0xffffffffu);
      h = from.number[0];
    }
#pragma unroll 1
    for (int back = between; back > 0; back -= BATCH) {
      GroupMap record[BATCH];
      bool all;
      do {
        all = true;
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
          if (j < back) {
            record[j].load(group - i64(back - j) * GROUP_WORDS, CHANNELS, epoch);
            all = all && record[j].tag != 0;
          }
        }
      } while (warp_vote(all) != 0xffffffffu);
#pragma unroll
      for (int j = 0; j < BATCH; j++) {
        if (j < back) h = apply(record[j].number[0], record[j].number[1], (record[j].tag & CUT) != 0, h);
      }
    }
    return h;
  }
};
