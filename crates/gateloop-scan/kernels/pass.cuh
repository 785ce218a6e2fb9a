// The persistent loop of every kernel: a pipeline of tiles through shared memory.
//
// In one turn of the loop, for consecutive tiles of the block:
//   tile k + STAGES - 2   its inputs are asked for
//   tile k                its map is computed from the inputs, by the data warps
//                         the state before it is found, by the last warps (look-back)
//   tile k - 1            its outputs are computed, by the data warps
// so that neither memory nor the look-back is waited for as long as the others have work.
//
// Tiles are handed out by a counter, columns before chunks, so that whatever a tile waits for is held
// by a running block that waits for nothing later: no launch order and no number of resident blocks
// can deadlock it. A block works on the tiles it holds in the order in which it took them.
#pragma once
#include "maps.cuh"

constexpr u32 NO_TILE = 0xffffffffu;

template <class G>
DEVICE Place place_of(const Shape& shape, u32 tile) {
  Place place;
  place.column = tile % shape.columns;
  place.chunk = tile / shape.columns;
  place.batch = place.column / shape.columns_per_row;
  place.channel = place.column % shape.columns_per_row * G::CHANNELS;
  place.start = i64(place.chunk) * G::POSITIONS;
  return place;
}

template <class Op>
struct Shared {
  static constexpr int RING = Op::Tile::STAGES + 1;
  typename Op::M maps[2]; // of tiles k and k - 1
  u32 ring[RING];         // the tiles of the block, in the order in which it took them
};
template <class Op>
constexpr int SHARED_BYTES = Op::Tile::STAGES * Op::STAGE_BYTES + int(sizeof(Shared<Op>));

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
  const u32 tile = shared.ring[entry];
  if (tile != NO_TILE) {
    Op::stage(params, shape, place_of<typename Op::Tile>(shape, tile), memory + slot * Op::STAGE_BYTES);
  }
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

  u32 before = NO_TILE;
  int slot = 0, slot_before = 0, entry = 0, parity = 0;
#pragma unroll 1
  while (true) {
    const u32 tile = shared.ring[entry];
    copy_async_wait<G::STAGES - 3>();
    // From here on tile k is here for every thread, and nobody reads the slot of tile k - 2.
    barrier_wait<STAGED, G::DATA_THREADS>();
    if (tile != NO_TILE) {
      request_tile<Op>(params, shape, memory, shared, (entry + G::STAGES - 2) % RING,
                       (slot + G::STAGES - 2) % G::STAGES);
      Op::map(params, shape, place_of<G>(shape, tile), memory + slot * Op::STAGE_BYTES, shared.maps[parity], warp,
              lane);
      arrive<MAPPED, G::THREADS>(parity);
    }
    if (before != NO_TILE) {
      wait<CARRIED, G::THREADS>(parity ^ 1);
      Op::emit(params, shape, place_of<G>(shape, before), memory + slot_before * Op::STAGE_BYTES,
               shared.maps[parity ^ 1], warp, lane);
    }
    if (tile == NO_TILE) return;
    before = tile;
    slot_before = slot;
    slot = slot + 1 == G::STAGES ? 0 : slot + 1;
    entry = entry + 1 == RING ? 0 : entry + 1;
    parity ^= 1;
  }
}

// Finds and leaves the state before a mapped tile, and tells later tiles of this one, for the channels
// `32 * part ..` in the order of `Maps`.
template <class Op>
DEVICE void carry(const typename Op::Params& params, const Shape& shape, const Place& place, const Workspace& work,
                  u32 epoch, int part, int lane, typename Op::M& maps) {
  using S = typename Op::State;
  using G = typename Op::Tile;
  const int channel = 32 * part + lane;
  S h = read_state(Op::initial(params), shape, place, u32(lane * Op::N + part));
  if (shape.chunks > 1) {
    const LookBack<S, G::CHANNELS> look(work.records, shape, place, h, epoch, channel, lane);
    const bool last = place.chunk + 1 == shape.chunks, ends_group = place.chunk % GROUP == GROUP - 1;
    const Affine<S> own = compose(maps, channel);
    Affine<S> before = Affine<S>::identity();
    look.search(own, !last && !ends_group, !ends_group, before, h);
    if (ends_group) {
      Affine<S> prefix = before;
      prefix.then(own);
      if (!last) look.publish_group(prefix);
      if (look.groups_before > 0) h = look.state_before();
      if (!last) look.publish_next_state(prefix(h));
    }
    if (look.in_group > 0) h = before(h);
  }
  maps.before[channel] = h;
}

template <class Op>
DEVICE void look_back_warps(const typename Op::Params& params, const Shape& shape, const Workspace& work,
                            Shared<Op>& shared, u32 tiles, u32 epoch) {
  using G = typename Op::Tile;
  constexpr int RING = Shared<Op>::RING;
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32 - G::WARPS;
  const bool leader = threadIdx.x == G::DATA_THREADS;
  int entry = 0, parity = 0;
#pragma unroll 1
  while (true) {
    const u32 tile = shared.ring[entry];
    if (tile == NO_TILE) break;
    u32 next = NO_TILE;
    if (leader && shape.prefetch > 1) next = add_atomic(&work.control->ticket, 1);
    wait<MAPPED, G::THREADS>(parity);
    carry<Op>(params, shape, place_of<G>(shape, tile), work, epoch, part, lane, shared.maps[parity]);
    // Tile k + STAGES takes the entry of tile k - 1; the data warps ask for it in the turn after next.
    if (leader) shared.ring[entry == 0 ? RING - 1 : entry - 1] = next < tiles ? next : NO_TILE;
    arrive<CARRIED, G::THREADS>(parity);
    entry = entry + 1 == RING ? 0 : entry + 1;
    parity ^= 1;
  }
  if (leader) leave(work, epoch);
}

// A block that took its first few tiles at once would hold neighbours, which then wait for each other
// from block to block. So each takes its second when all have taken their first, and so on; but not
// for long, since blocks may be yet to start that wait for this one to end.
DEVICE void await_round(const Workspace& work, u32 taken) {
  for (int polls = 0; polls < 20 && load_relaxed(&work.control->ticket) < taken; polls++) {}
}

// `Op::stage` asks for a tile's inputs, `Op::map` leaves each warp's map in `maps`, `Op::emit` goes
// through the tile again from the state before it and writes the outputs.
template <class Op>
DEVICE void run_pass(const typename Op::Params& params, const Shape& shape, const Workspace& work) {
  using G = typename Op::Tile;
  static_assert(G::STAGES >= 3, "one tile arriving, one in work, one being written");
  DYNAMIC_SHARED(memory);
  Shared<Op>& shared = *reinterpret_cast<Shared<Op>*>(memory + G::STAGES * Op::STAGE_BYTES);
  const u32 tiles = shape.columns * shape.chunks;
  const bool looks_back = threadIdx.x >= G::DATA_THREADS;
  u32 epoch = 0;
  if (looks_back) {
    // A workspace fresh from the allocator holds epoch 0, which is no tag.
    epoch = load_relaxed(&work.control->epoch);
    if (epoch == 0) epoch = 1;
  }
  const bool leader = threadIdx.x == G::DATA_THREADS;
  const auto take = [&](int entry) {
    const u32 tile = add_atomic(&work.control->ticket, 1);
    shared.ring[entry] = tile < tiles ? tile : NO_TILE;
  };
  if (leader) take(0);
  block_barrier();
  if (leader) {
    for (int entry = 1; entry < G::STAGES; entry++) {
      if (shape.prefetch > 1) {
        await_round(work, u32(entry) * gridDim.x);
        take(entry);
      } else {
        shared.ring[entry] = NO_TILE;
      }
    }
  }
  if (!looks_back) request_tile<Op>(params, shape, memory, shared, 0, 0);
  block_barrier();
  if (looks_back) {
    look_back_warps<Op>(params, shape, work, shared, tiles, epoch);
  } else {
    data_warps<Op>(params, shape, memory, shared);
  }
}
