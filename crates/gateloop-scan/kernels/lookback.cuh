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

constexpr int GROUP = 8;
constexpr u32 EVERY_LANE = 0xffffffffu;

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
  DEVICE Affine followed_by(const Affine& next) const {
    Affine both = *this;
    both.then(next);
    return both;
  }
  DEVICE S operator()(S h) const { return apply(a, x, cut, h); }
};

template <class S>
DEVICE Affine<S> map_of(const Record<S, 2>& record) {
  return {record.number[0], record.number[1], (record.tag & CUT) != 0};
}

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
  static constexpr int BATCH = (GROUP - 1) / Tile::WORDS;

  Word *tile, *group; // this lane's words of the tile and of its group
  u32 epoch;
  int in_group, groups_before, lane;
  Tile nearby;      // of the tile before
  GroupState state; // before the group

  // Asks for what may be there already: where blocks have many columns to work on, the tile before was done
  // a turn ago.
  DEVICE LookBack(Word* records, const Shape& shape, const Place& place, u32 epoch_, int channel, int lane_)
      : epoch(epoch_), lane(lane_) {
    const u32 groups = (shape.chunks + GROUP - 1) / GROUP;
    const i64 tiles = i64(shape.columns) * shape.chunks;
    in_group = place.chunk % GROUP;
    groups_before = place.chunk / GROUP;
    tile = records + (i64(place.column) * shape.chunks + place.chunk) * TILE + channel;
    group = records + tiles * TILE + (i64(place.column) * groups + groups_before) * GROUP_WORDS + channel;
    nearby.tag = state.tag = 0;
    if (in_group > 0) nearby.load(tile - TILE, CHANNELS, epoch);
    if (groups_before > 0) state.load(group + STATE, CHANNELS, epoch);
  }

  DEVICE u32 tag(u32 kind, bool cut) const { return epoch * 8 + (cut ? CUT | kind : kind); }
  DEVICE void publish_group(const Affine<S>& m) const { GroupMap::store(group, CHANNELS, {m.a, m.x}, tag(MAP, m.cut)); }
  DEVICE void publish_next_state(S h) const { GroupState::store(group + GROUP_WORDS + STATE, CHANNELS, {h}, tag(WHOLE, false)); }

  // Publishes the tile's map, finds the prefix of the tile before in the same group, if there is one, and
  // publishes the tile's own; meanwhile, the state before the group, if it is not the first. Returns whether
  // the latter was found: the last tile of a group, which the next group waits for, does not wait for it.
  DEVICE bool search(const Affine<S>& own, bool publishes, bool waits_for_state, Affine<S>& before, S& h) {
    const auto store = [&](const Affine<S>& m, u32 kind) {
      if (publishes) Tile::store(tile, CHANNELS, {m.a, m.x}, tag(kind, m.cut));
    };
    bool has_prefix = in_group == 0, has_state = groups_before == 0;
    store(own, has_prefix ? WHOLE : MAP);
    if (!has_prefix && warp_vote((nearby.tag & WHOLE) != 0) == EVERY_LANE) {
      before = map_of(nearby);
      has_prefix = true;
      looked_back(0, 1);
      store(before.followed_by(own), WHOLE);
    }
    int found = 0; // tiles of the group that `before` covers
    while (true) {
      if (!has_state && warp_vote(state.tag != 0) == EVERY_LANE) {
        has_state = true;
        h = state.number[0];
      }
      if (has_prefix && (has_state || !waits_for_state)) return has_state;
      if (!has_state) state.load(group + STATE, CHANNELS, epoch);
      if (!has_prefix && extend(found, before)) {
        has_prefix = true;
        looked_back(0, in_group);
        store(before.followed_by(own), WHOLE);
      }
    }
  }

  // Follows `before` by those of the group's next tiles that are there, in their order: one trip to the L2
  // cache. True when it covers all up to this one.
  DEVICE bool extend(int& found, Affine<S>& before) const {
    const int asked = in_group - found, first = found;
    Tile record[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      record[j].tag = 0;
      if (j < asked) record[j].load(tile - i64(asked - j) * TILE, CHANNELS, epoch);
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      if (warp_vote(record[j].tag != 0) == EVERY_LANE && found == first + j) {
        // A prefix equals what is composed of maps, so that lanes may differ in which they see.
        before = (record[j].tag & WHOLE) ? map_of(record[j]) : before.followed_by(map_of(record[j]));
        found++;
      }
    }
    return found == in_group;
  }

  // The state before the tile's group, which is not the first, from further back: for the last tile of
  // a group, which the next group waits for. `initial` is the state before the first tile.
  DEVICE S state_before(S initial) const {
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
      if (warp_vote(own.tag != 0) == EVERY_LANE) return own.number[0];
      // The state before the first group is known to all, but nobody publishes it.
      const bool is_first = lane + 1 == groups_before;
      const u32 states = warp_vote(state != 0 || is_first), maps = warp_vote(map != 0);
      if (states == 0) continue;
      between = __ffs(int(states));
      looked_back(1, between);
      const u32 needed = between == 32 ? EVERY_LANE : (1u << between) - 1;
      if ((maps & needed) == needed) break;
    }
    S h = Constant<S>::zero();
    const bool from_first = between == groups_before;
    if (from_first) {
      h = initial;
    } else {
      GroupState from;
      do from.load(group - i64(between) * GROUP_WORDS + STATE, CHANNELS, epoch);
      while (warp_vote(from.tag != 0) != EVERY_LANE);
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
      } while (warp_vote(all) != EVERY_LANE);
#pragma unroll
      for (int j = 0; j < BATCH; j++) {
        if (j < back) h = apply(record[j].number[0], record[j].number[1], (record[j].tag & CUT) != 0, h);
      }
    }
    return h;
  }
};
