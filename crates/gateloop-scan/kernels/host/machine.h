// The machine: blocks that are resident together, and who of their threads runs next.
//
// One thread of the system runs everything, so a run repeats exactly from its seed. Threads give way
// where they wait and where they look at what others may have stored.
#pragma once
#include "fibers.h"
#include <memory>
#include <stdio.h>
#include <string.h>
#include <string>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// Sixteen bytes that other blocks see whole.
struct alignas(16) Word {
  u64 low, high;
};

namespace host {

struct Random {
  u64 state;
  explicit Random(u64 seed) : state(seed * 0x9E3779B97F4A7C15ull + 1) {}
  u64 next() {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state * 0x2545F4914F6CDD1Dull;
  }
  u32 below(u32 n) { return u32((next() >> 33) % n); }
  bool one_in(u32 n) { return below(n) == 0; }
  double unit() { return double(next() >> 11) / 9007199254740992.0; }
};

// Promises that this machine may break, to see whether the suite notices.
enum Mutant {
  NONE,
  TORN_STORE,        // the halves of a word arrive apart
  TORN_LOAD,         // and are read apart
  NO_TICKET,         // tiles by block, whichever runs
  NO_BLOCK_BARRIER,
  NO_STAGED_BARRIER, // before the inputs are read
  NO_MAPPED_BARRIER, // before the look-back reads the maps
  NO_CARRIED_BARRIER, // before the outputs are computed from the state
  NO_COPY_WAIT,
  SAME_EPOCH,        // what the last launch left looks new
  MUTANTS
};
constexpr const char* MUTANT_NAMES[MUTANTS] = {
    "none", "torn_store", "torn_load", "no_ticket", "no_block_barrier", "no_staged_barrier", "no_mapped_barrier",
    "no_carried_barrier", "no_copy_wait", "same_epoch"};
inline Mutant mutant = NONE;

enum Order { FORWARD, REVERSE, SHUFFLED };
enum Schedule { FIFO, LIFO, RANDOM, STARVE_OLD };

struct Options {
  u32 resident = 4;
  Order order = FORWARD;
  Schedule schedule = FIFO;
  bool weak = true; // stores arrive late and in any order, loads may be of the past
  u64 seed = 1;
};

// What a kernel asks of a launch: found by running it to its first line. See `DYNAMIC_SHARED`.
struct Needs {
  int shared_bytes, threads, stages, positions, channels, tile_words, group_words, group;
};

struct Index { u32 x = 0, y = 0, z = 0; };
struct Block;
struct Warp;

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  int bytes;
  u32 group;
};

struct Thread {
  Context context;
  unsigned char* stack = nullptr;
  Block* block = nullptr;
  Warp* warp = nullptr;
  Index index;
  u32 number = 0; // of the launch
  u64 progress_seen = 0;
  int fruitless = 0;
  std::vector<Copy> copies; // asked for, not yet made
  u32 group = 1, due = 0;   // the group being filled; groups up to `due` were waited for
};

struct Warp {
  Thread* lanes[32] = {};
  int arrived = 0, place = 0; // lanes that stand at the operation `place`
  u32 votes = 0, result = 0;
  u64 given[32] = {}, exchanged[32] = {}; // by the lanes
};

struct Barrier {
  int arrived = 0, expected = 0;
  std::vector<Warp*> came, waiting;
};

constexpr size_t GUARD = 64;
constexpr unsigned char POISON = 0xFF; // NaN in every format

struct Block {
  Index index;
  u32 serial = 0, alive = 0, taken = 0;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  Barrier barriers[16];
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
};

struct LateStore {
  u32 thread;
  Word* at;
  Word value;
  int halves; // 1: low, 2: high
};
struct Past {
  Word value;
  u64 since = 0; // when it was overwritten
};

struct Launch {
  const char* kernel;
  u32 grid;
  Needs needs;
  Word* records;
  u64 capacity;
  u32* ticket;
};

struct Machine {
  Options options;
  Launch launch;
  Random random{1};
  void (*entry)(const void*) = nullptr;
  const void* argument = nullptr;
  Index grid;
  Context scheduler;
  std::vector<std::unique_ptr<Block>> resident;
  std::vector<Thread*> ready, spinning;
  std::vector<unsigned char*> stacks;
  std::vector<LateStore> late;
  std::vector<Past> past; // of each word of the workspace
  u64 progress = 0;       // grows when something happens that another thread may wait for
  u64 clock = 1 << 20;    // loads so far
  u64 switches = 0, loads = 0;
  bool probing = false;
};
inline Machine machine;
inline Thread* current = nullptr;

// The exit status by which the bench says that it found a fault of the kernels.
constexpr int FAULT = 3;

// A fault after which nothing that follows would mean anything.
[[noreturn]] inline void fault(const std::string& what) {
  printf("FAULT in %s: %s (block %u, thread %u)\n", machine.launch.kernel, what.c_str(),
         current ? current->block->index.x : 0, current ? current->index.x : 0);
  fflush(stdout);
  _Exit(FAULT);
}

inline void give_way() {
  Thread* self = current;
  switch_context(self->context, machine.scheduler);
}
inline void pause() {
  machine.ready.push_back(current);
  give_way();
}

// A thread that looks again and again while nothing happens stands back until something has, or until
// all others wait: any schedule lets a spinning loop hang otherwise.
inline void before_load() {
  Thread& self = *current;
  machine.loads++;
  machine.clock++;
  if (self.progress_seen != machine.progress) {
    self.progress_seen = machine.progress;
    self.fruitless = 0;
  }
  if (++self.fruitless >= 4) {
    self.fruitless = 0;
    machine.spinning.push_back(&self);
    give_way();
  } else if (machine.random.one_in(8)) {
    pause();
  }
}

void make_visible(size_t which);
inline void make_all_visible() {
  while (!machine.late.empty()) make_visible(0);
}

inline void run_thread() {
  machine.entry(machine.argument);
  current->block->alive--;
  machine.progress++;
  give_way();
  abort();
}

inline void start_block(u32 index, u32 serial) {
  auto block = std::make_unique<Block>();
  const u32 threads = u32(machine.launch.needs.threads);
  block->index = {index, 0, 0};
  block->serial = serial;
  block->alive = threads;
  block->warps.resize(threads / 32);
  block->shared_bytes = size_t(machine.launch.needs.shared_bytes);
  const size_t bytes = (block->shared_bytes + GUARD + 15) / 16 * 16;
  block->shared = static_cast<unsigned char*>(aligned_alloc(16, bytes));
  memset(block->shared, POISON, bytes);
  for (u32 i = 0; i < threads; i++) {
    auto thread = std::make_unique<Thread>();
    thread->block = block.get();
    thread->warp = &block->warps[i / 32];
    thread->warp->lanes[i % 32] = thread.get();
    thread->index = {i, 0, 0};
    thread->number = serial * threads + i;
    if (machine.stacks.empty()) machine.stacks.push_back(new_stack());
    thread->stack = machine.stacks.back();
    machine.stacks.pop_back();
    prepare(thread->context, thread->stack, run_thread);
    machine.ready.push_back(thread.get());
    block->threads.push_back(std::move(thread));
  }
  machine.resident.push_back(std::move(block));
}

inline void end_block(Block& block) {
  for (size_t i = 0; i < GUARD; i++) {
    if (block.shared[block.shared_bytes + i] != POISON) fault("wrote behind the shared memory of a block");
  }
  free(block.shared);
  for (auto& thread : block.threads) machine.stacks.push_back(thread->stack);
}

inline Thread* take(size_t at) {
  Thread* thread = machine.ready[at];
  machine.ready[at] = machine.ready.back();
  machine.ready.pop_back();
  return thread;
}

inline Thread* next_thread() {
  const u32 count = u32(machine.ready.size());
  switch (machine.options.schedule) {
    case LIFO: return take(count - 1);
    case RANDOM: return take(machine.random.below(count));
    default: {
      u32 best = machine.random.below(count);
      for (int tries = 0; tries < 8; tries++) {
        const u32 other = machine.random.below(count);
        if (machine.ready[other]->block->serial > machine.ready[best]->block->serial) best = other;
      }
      return take(best);
    }
  }
}

inline void run(Thread* thread) {
  Machine& m = machine;
  if (!m.late.empty() && (m.late.size() > 4096 || m.random.one_in(8))) make_visible(m.random.below(u32(m.late.size())));
  m.switches++;
  current = thread;
  switch_context(m.scheduler, thread->context);
  current = nullptr;
}

inline std::vector<u32> launch_order(u32 grid) {
  std::vector<u32> order(grid);
  for (u32 i = 0; i < grid; i++) order[i] = machine.options.order == REVERSE ? grid - 1 - i : i;
  if (machine.options.order == SHUFFLED) {
    for (u32 i = grid; i > 1; i--) std::swap(order[i - 1], order[machine.random.below(i)]);
  }
  return order;
}

// Runs all blocks. What it returns says why they could not end, or is null.
inline const char* run_all(void (*entry)(const void*), const void* argument) {
  Machine& m = machine;
  m.entry = entry, m.argument = argument;
  m.random = Random(m.options.seed);
  m.grid = {m.launch.grid, 1, 1};
  m.past.assign(m.launch.capacity, Past());
  m.progress = 0;
  const std::vector<u32> order = launch_order(m.launch.grid);
  u32 started = 0;
  u64 seen = ~0ull, woken = ~0ull;
  int idle = 0;
  const char* problem = nullptr;
  std::vector<Thread*> batch;
  while (!problem) {
    for (size_t i = 0; i < m.resident.size();) {
      if (m.resident[i]->alive > 0) {
        i++;
        continue;
      }
      end_block(*m.resident[i]);
      m.resident.erase(m.resident.begin() + i64(i));
    }
    for (; started < order.size() && m.resident.size() < m.options.resident; started++) {
      start_block(order[started], started);
    }
    if (m.resident.empty()) break;
    if (m.ready.empty()) {
      if (m.spinning.empty()) {
        problem = "all threads wait at barriers";
      } else if (m.progress != seen) {
        seen = m.progress, idle = 0;
      } else if (++idle == 50) {
        // Whatever was stored arrives some time.
        make_all_visible();
        m.clock += 1 << 20;
      } else if (idle > 200) {
        problem = "all threads wait or look in vain, and nothing is stored";
      }
      m.ready.swap(m.spinning);
      continue;
    }
    // Some steps between the looks for blocks that ended.
    if (m.options.schedule == FIFO) {
      batch.clear();
      batch.swap(m.ready);
      for (Thread* thread : batch) run(thread);
      continue;
    }
    for (int step = 0; step < 64 && !m.ready.empty(); step++) {
      if (m.options.schedule == RANDOM && !m.spinning.empty() && m.progress != woken && m.random.one_in(16)) {
        woken = m.progress;
        m.ready.insert(m.ready.end(), m.spinning.begin(), m.spinning.end());
        m.spinning.clear();
      }
      run(next_thread());
    }
  }
  make_all_visible();
  for (auto& block : m.resident) end_block(*block);
  m.resident.clear(), m.ready.clear(), m.spinning.clear();
  return problem;
}

} // namespace host
