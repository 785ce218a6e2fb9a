// The persistent loop of every kernel: a pipeline of tiles through shared memory.
//
// In one turn of the loop, for consecutive tiles of the block:
//   tile k + STAGES - 2   its inputs are asked for
//   tile k                its map is computed from the inputs, by the data warps
//                         the state before it is found, by the warps behind them (look-back)
//   tile k - 1            its outputs are computed, by the data warps
//   tile k + STAGES       is taken and found, by the very last warp
// so that neither memory nor the look-back is waited for as long as the others have work.
//
// Tiles are handed out by a counter, columns before chunks, so that whatever a tile waits for is held
// by a running block that waits for nothing later: no launch order and no number of resident blocks
// can deadlock it. A block works on the tiles it holds in the order in which it took them.
#pragma once
#include "maps.cuh"

// What an operator has that works in the direction of its pass alone and reads its inputs twice.
struct Nothing {};
struct OneWay {
  using Kept = Nothing;
  template <class Params>
  DEVICE static Nothing entry(const Params&, const Shape&, const Place&, int) { return {}; }
  template <class M>
  DEVICE static void enter(M&, int, Nothing) {}
  // Where a tile of the pass lies in the sequence.
  DEVICE static Place in_memory(const Shape&, const Place& place) { return place; }
};

template <class Op>
struct Shared {
  // Tile k + STAGES takes the entry of tile k - 2, which nobody looks at any more once tile k is mapped.
  static constexpr int RING = Op::Tile::STAGES + 2;
  typename Op::M maps[2];     // of tiles k and k - 1
  Taken<Op::ARRAYS> ring[RING]; // the tiles of the block, in the order in which it took them
};
template <class Op>
constexpr int SHARED_BYTES = Op::Tile::STAGES * Op::STAGE_BYTES + int(sizeof(Shared<Op>));

DEVICE int next_of(int i, int count) { return i + 1 == count ? 0 : i + 1; }

// Finds where a tile lies. All lanes of one warp come to the same; lane 0 writes it down.
template <class Op>
DEVICE void locate(const typename Op::Params& params, const Shape& shape, u32 tile, Taken<Op::ARRAYS>& to) {
  using G = typename Op::Tile;
  Taken<Op::ARRAYS> taken;
  taken.place = {NO_TILE, 0, 0, 0};
  if (tile < shape.columns * shape.chunks) {
    Place& place = taken.place;
    place.chunk = tile / shape.columns;
    place.column = tile - place.chunk * shape.columns;
    place.batch = place.column / shape.columns_per_row;
    place.channel = (place.column - place.batch * shape.columns_per_row) * G::CHANNELS;
    const Place in_memory = Op::in_memory(shape, place);
    const i64 left = shape.seqlen - G::start(in_memory);
    taken.left = left <= G::POSITIONS ? int(left) : G::POSITIONS + 1;
    taken.is_plain = Op::is_plain(params, in_memory) && left >= G::POSITIONS + (Op::ENDS_PLAIN ? 0 : 1);
    Op::locate(params, in_memory, G::start(in_memory), taken.at, taken.first_checkpoint);
  }
  if (threadIdx.x % 32 == 0) to = taken;
}

// Leaves the workspace ready for the next launch. One lane of each block calls it, last of all.
DEVICE void leave(const Workspace& work, u32 epoch) {
  if (add_atomic(&work.control->done, 1) + 1 < gridDim.x) return;
  u32 next = epoch + 1;
  if (next == EPOCHS) {
    // Tags of the first epochs may still lie about.
    for (u64 i = 0; i < work.capacity; i++) work.records[i] = {0, 0};
    next = 1;
  }
  work.control->ticket = 0;
  work.control->done = 0;
  work.control->epoch = next;
}

// The barriers of a block; those that come in pairs are for tiles of even and odd number, so that one
// side may be a tile ahead of the other.
constexpr int STAGED = 1, MAPPED = 2, CARRIED = 4;

// The identifiers are constants of the code: a barrier whose number is known at run time only takes
// all sixteen of the hardware's.
template <int PAIR, int THREADS>
DEVICE void arrive(int parity) {
  if (parity) barrier_arrive<PAIR + 1, THREADS>();
  else barrier_arrive<PAIR, THREADS>();
}
template <int PAIR, int THREADS>
DEVICE void wait(int parity) {
  if (parity) barrier_wait<PAIR + 1, THREADS>();
  else barrier_wait<PAIR, THREADS>();
}

template <class Op>
DEVICE void request_tile(const typename Op::Params& params, const Shape& shape, unsigned char* memory,
                         const Shared<Op>& shared, int entry, int slot) {
  const auto& taken = shared.ring[entry];
  if (taken.place.column != NO_TILE) Op::stage(params, shape, taken, memory + slot * Op::STAGE_BYTES);
  copy_async_commit();
}

template <class Op>
DEVICE void data_warps(const typename Op::Params& params, const Shape& shape, unsigned char* memory,
                       Shared<Op>& shared) {
  using G = typename Op::Tile;
  constexpr int RING = Shared<Op>::RING;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
  for (int slot = 1; slot < G::STAGES - 2; slot++) request_tile<Op>(params, shape, memory, shared, slot, slot);

  typename Op::Kept kept, kept_before; // of tiles k and k - 1
  bool is_first = true;
  int slot = 0, slot_before = 0, entry = 0, entry_before = 0, parity = 0;
  int asked_slot = G::STAGES - 2, asked_entry = G::STAGES - 2;
#pragma unroll 1
  while (true) {
    const auto& taken = shared.ring[entry];
    copy_async_wait<G::STAGES - 3>();
    // From here on tile k is here for every thread, and nobody reads the slot of tile k - 2.
    barrier_wait<STAGED, G::DATA_THREADS>();
    const bool is_tile = taken.place.column != NO_TILE;
    if (is_tile) {
      request_tile<Op>(params, shape, memory, shared, asked_entry, asked_slot);
      const unsigned char* inputs = memory + slot * Op::STAGE_BYTES;
      if (taken.is_plain) {
        Op::template map<true>(params, taken, inputs, shared.maps[parity], warp, lane, kept);
      } else {
        Op::template map<false>(params, taken, inputs, shared.maps[parity], warp, lane, kept);
      }
      arrive<MAPPED, G::THREADS>(parity);
    }
    if (!is_first) {
      wait<CARRIED, G::THREADS>(parity ^ 1);
      const auto& before = shared.ring[entry_before];
      const unsigned char* inputs = memory + slot_before * Op::STAGE_BYTES;
      if (before.is_plain) {
        Op::template emit<true>(params, shape, before, inputs, shared.maps[parity ^ 1], warp, lane, kept_before);
      } else {
        Op::template emit<false>(params, shape, before, inputs, shared.maps[parity ^ 1], warp, lane, kept_before);
      }
    }
    if (!is_tile) return;
    is_first = false;
    kept_before = kept;
    slot_before = slot;
    entry_before = entry;
    slot = next_of(slot, G::STAGES);
    entry = next_of(entry, RING);
    asked_slot = next_of(asked_slot, G::STAGES);
    asked_entry = next_of(asked_entry, RING);
    parity ^= 1;
  }
}

// Finds and leaves the state before a mapped tile, and tells later tiles of this one, for the channels
// `32 * part ..` in the order of `Maps`. What can be asked for before the tile is mapped is.
template <class Op>
DEVICE void carry(const typename Op::Params& params, const Shape& shape, const Place& place, const Workspace& work,
                  u32 epoch, int part, int lane, int parity, typename Op::M& maps) {
  using S = typename Op::State;
  using G = typename Op::Tile;
  const int channel = 32 * part + lane, in_tile = lane * Op::N + part;
  const auto entry = Op::entry(params, shape, place, in_tile);
  S h = Constant<S>::zero();
  if (place.chunk < GROUP) h = read_state(Op::initial(params), shape, place, in_tile);
  if (shape.chunks > 1) {
    LookBack<S, G::CHANNELS> look(work.records, shape, place, epoch, channel, lane);
    wait<MAPPED, G::THREADS>(parity);
    const bool last = place.chunk + 1 == shape.chunks, ends_group = look.in_group == GROUP - 1;
    const Affine<S> own = compose(maps, channel);
    Affine<S> before = Affine<S>::identity();
    const bool has_state = look.search(own, !last && !ends_group, !ends_group, before, h);
    if (ends_group) {
      const Affine<S> prefix = before.followed_by(own);
      if (!last) look.publish_group(prefix);
      if (!has_state) h = look.state_before(read_state(Op::initial(params), shape, place, in_tile));
      if (!last) look.publish_next_state(prefix(h));
    }
    if (look.in_group > 0) h = before(h);
  } else {
    wait<MAPPED, G::THREADS>(parity);
  }
  Op::enter(maps, channel, entry);
  put_states(maps, channel, h);
}

template <class Op>
DEVICE void look_back_warp(const typename Op::Params& params, const Shape& shape, const Workspace& work,
                           Shared<Op>& shared) {
  using G = typename Op::Tile;
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32 - G::WARPS;
  // A workspace fresh from the allocator holds epoch 0, which is no tag.
  u32 epoch = load_relaxed(&work.control->epoch);
  if (epoch == 0) epoch = 1;
  int entry = 0, parity = 0;
#pragma unroll 1
  while (shared.ring[entry].place.column != NO_TILE) {
    const Place place = shared.ring[entry].place;
    carry<Op>(params, shape, place, work, epoch, part, lane, parity, shared.maps[parity]);
    arrive<CARRIED, G::THREADS>(parity);
    entry = next_of(entry, Shared<Op>::RING);
    parity ^= 1;
  }
  if (part == 0 && lane == 0) leave(work, epoch);
}

// The next tile's number, for all lanes.
DEVICE u32 take(const Workspace& work) {
  u32 tile = 0;
  if (threadIdx.x % 32 == 0) tile = add_atomic(&work.control->ticket, 1);
  return first_lane(tile);
}

// A block that took its first few tiles at once would hold neighbours, which then wait for each other
// from block to block. So each takes its second when all have taken their first, and so on; but not
// for long, since blocks may be yet to start that wait for this one to end.
DEVICE void await_round(const Workspace& work, u32 taken) {
  for (int polls = 0; polls < 20 && load_relaxed(&work.control->ticket) < taken; polls++) {}
}

template <class Op>
DEVICE void taking_warp(const typename Op::Params& params, const Shape& shape, const Workspace& work,
                        Shared<Op>& shared) {
  using G = typename Op::Tile;
  constexpr int RING = Shared<Op>::RING;
  int entry = 0, free_entry = G::STAGES, parity = 0;
#pragma unroll 1
  while (shared.ring[entry].place.column != NO_TILE) {
    // Asked for a turn before it is needed.
    const u32 tile = shape.prefetch > 1 ? take(work) : NO_TILE;
    wait<MAPPED, G::THREADS>(parity);
    locate<Op>(params, shape, tile, shared.ring[free_entry]);
    arrive<CARRIED, G::THREADS>(parity);
    entry = next_of(entry, RING);
    free_entry = next_of(free_entry, RING);
    parity ^= 1;
  }
}

// `Op::stage` asks for a tile's inputs, `Op::map` leaves each warp's map in `maps` and in registers what
// it likes to keep, `Op::emit` goes through the tile again from the state before each warp and writes the
// outputs. `Op::entry` and `Op::enter` are for an operator whose other direction begins in the same tile.
//
// A tile is plain where nothing is cut and the sequence does not end in it (nor, unless `Op::ENDS_PLAIN`, with
// it): code without branches, which is what lets the hardware overlap one position with the next.
template <class Op>
DEVICE void run_pass(const typename Op::Params& params, const Shape& shape, const Workspace& work) {
  using G = typename Op::Tile;
  static_assert(G::STAGES >= 3, "one tile arriving, one in work, one being written");
  DYNAMIC_SHARED(memory);
  Shared<Op>& shared = *reinterpret_cast<Shared<Op>*>(memory + G::STAGES * Op::STAGE_BYTES);
  const int warp = threadIdx.x / 32;
  const bool takes = warp == G::WARPS + G::LANE;
  if (takes) locate<Op>(params, shape, take(work), shared.ring[0]);
  block_barrier();
  if (takes) {
#pragma unroll 1
    for (int entry = 1; entry < G::STAGES; entry++) {
      u32 tile = NO_TILE;
      if (shape.prefetch > 1) {
        await_round(work, u32(entry) * gridDim.x);
        tile = take(work);
      }
      locate<Op>(params, shape, tile, shared.ring[entry]);
    }
  }
  if (warp < G::WARPS) request_tile<Op>(params, shape, memory, shared, 0, 0);
  block_barrier();
  if (warp < G::WARPS) {
    data_warps<Op>(params, shape, memory, shared);
  } else if (takes) {
    taking_warp<Op>(params, shape, work, shared);
  } else {
    look_back_warp<Op>(params, shape, work, shared);
  }
}
