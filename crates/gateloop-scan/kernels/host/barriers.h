// Where threads meet: votes of a warp, barriers of a block.
//
// A warp comes to either as one, as the hardware wants it; lanes that stand at different ones are a
// fault. Votes order no memory and are no progress: spinning loops vote.
#pragma once
#include "async_copies.h"

namespace host {

constexpr int VOTE = 1, EXCHANGE = 2, ARRIVE = 100, WAIT = 200;

// True for the last lane to come; for the others when the last one has let them go.
inline bool gather(int place) {
  Warp& warp = *current->warp;
  if (warp.arrived > 0 && warp.place != place) fault("lanes of a warp stand at different barriers or votes");
  warp.place = place;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    return true;
  }
  give_way();
  return false;
}
inline void let_others_go(Warp& warp) {
  for (Thread* lane : warp.lanes) {
    if (lane != current) machine.ready.push_back(lane);
  }
}

inline u32 vote(bool predicate) {
  Warp& warp = *current->warp;
  if (predicate) warp.votes |= 1u << (current->index.x % 32);
  if (gather(VOTE)) {
    warp.result = warp.votes;
    warp.votes = 0;
    let_others_go(warp);
  }
  return warp.result; // no lane votes again before all have read it
}

// What lane 0 has, for all. Bits of a vote at a time, so that a warp has one way to meet.
inline u32 broadcast(u32 v) {
  u32 result = 0;
  for (int bit = 0; bit < 32; bit++) result |= (vote((v >> bit & 1) != 0) & 1) << bit;
  return result;
}

// What another lane gave, bit by bit.
inline u64 exchange(u64 bits, u32 lane) {
  Warp& warp = *current->warp;
  warp.given[current->index.x % 32] = bits;
  if (gather(EXCHANGE)) {
    memcpy(warp.exchanged, warp.given, sizeof warp.given);
    let_others_go(warp);
  }
  return warp.exchanged[lane]; // no lane gives again before all have read it
}

// False for the barriers that a mutant lacks: 0 of the block, 1 STAGED, 2 and 3 MAPPED, 4 and 5 CARRIED.
inline bool has_barrier(int id) {
  switch (mutant) {
    case NO_BLOCK_BARRIER: return id != 0;
    case NO_STAGED_BARRIER: return id != 1;
    case NO_MAPPED_BARRIER: return id != 2 && id != 3;
    case NO_CARRIED_BARRIER: return id != 4 && id != 5;
    default: return true;
  }
}

inline void barrier(int id, int threads, bool waits) {
  make_due_copies();
  if (!gather((waits ? WAIT : ARRIVE) + id)) return;
  Warp& warp = *current->warp;
  Barrier& barrier = current->block->barriers[id];
  if (barrier.arrived > 0 && barrier.expected != threads) fault("a barrier is used with two counts of threads");
  for (Warp* other : barrier.came) {
    if (other == &warp) fault("a warp came twice to a barrier before all others came");
  }
  barrier.expected = threads;
  barrier.came.push_back(&warp);
  barrier.arrived += 32;
  if (barrier.arrived < threads) {
    if (waits) {
      barrier.waiting.push_back(&warp);
      give_way();
    } else {
      let_others_go(warp);
    }
    return;
  }
  machine.progress++;
  for (Warp* other : barrier.waiting) {
    for (Thread* lane : other->lanes) machine.ready.push_back(lane);
  }
  barrier.waiting.clear();
  barrier.came.clear();
  barrier.arrived = 0;
  let_others_go(warp);
  if (machine.random.one_in(2)) pause();
}

} // namespace host
