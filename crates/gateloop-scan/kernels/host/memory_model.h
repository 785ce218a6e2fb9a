// Memory between blocks, weak: a store becomes visible late and out of order with others, and a load may
// find what was there before for a while, each thread for a while of its own.
//
// Kept as promised by the hardware: the words of one address come in order, for each reader too, and a
// word is never torn. Not modelled: relaxed loads of the ticket and the epoch, which are always of now.
#pragma once
#include "machine.h"

namespace host {

inline size_t word_index(const Word* at) {
  const size_t index = size_t(at - machine.launch.records);
  if (at < machine.launch.records || index >= machine.launch.capacity) fault("a record lies outside the workspace");
  return index;
}
inline void overlay(Word& word, const LateStore& store) {
  if (store.halves & 1) word.low = store.value.low;
  if (store.halves & 2) word.high = store.value.high;
}
inline void commit(const LateStore& store) {
  machine.past[word_index(store.at)] = {*store.at, ++machine.clock};
  overlay(*store.at, store);
  machine.progress++;
}
// Of the stores of one thread to one word the first goes first.
inline void make_visible(size_t which) {
  auto& late = machine.late;
  const LateStore chosen = late[which];
  for (size_t i = 0; i < which; i++) {
    if (late[i].thread == chosen.thread && late[i].at == chosen.at && (late[i].halves & chosen.halves)) {
      which = i;
      break;
    }
  }
  commit(late[which]);
  late.erase(late.begin() + i64(which));
}

inline void store(Word* at, Word value) {
  word_index(at);
  const auto store_halves = [&](int halves) {
    const LateStore store = {current->number, at, value, halves};
    if (machine.options.weak) {
      machine.late.push_back(store);
    } else {
      commit(store);
    }
  };
  if (mutant == TORN_STORE) {
    store_halves(1);
    store_halves(2);
  } else {
    store_halves(3);
  }
}

// For how many loads of anyone this thread does not see what came at the time `since`. It depends on
// nothing else, so that a thread which has seen a word never sees an older one.
inline u64 blindness(size_t index, u64 since) {
  u64 hash = (u64(index) ^ since * 0x9E3779B97F4A7C15ull ^ u64(current->number) << 40) * 0xBF58476D1CE4E5B9ull;
  hash ^= hash >> 29;
  hash *= 0x94D049BB133111EBull;
  return hash >> 63 ? 0 : 1ull << (hash >> 32) % 14;
}

inline Word load_once(const Word* at) {
  const size_t index = word_index(at);
  Word word = *at;
  if (!machine.options.weak) return word;
  const Past& past = machine.past[index];
  if (past.since > 0 && machine.clock - past.since < blindness(index, past.since)) word = past.value;
  for (const LateStore& store : machine.late) {
    if (store.thread == current->number && store.at == at) overlay(word, store);
  }
  return word;
}
inline Word load(const Word* at) {
  before_load();
  const Word word = load_once(at);
  if (mutant != TORN_LOAD) return word;
  pause();
  return {word.low, load_once(at).high};
}

inline u32 add(u32* at, u32 value) {
  if (mutant == NO_TICKET && at == machine.launch.ticket) {
    return current->block->index.x + machine.grid.x * current->block->taken++;
  }
  const u32 before = *at;
  *at = before + value;
  machine.progress++;
  return before;
}

} // namespace host
