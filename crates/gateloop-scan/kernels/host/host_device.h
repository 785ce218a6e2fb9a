// What device.cuh asks of the machine, on a CPU. See machine.h.
//
#pragma once
#include "barriers.h"
#include "memory_model.h"
#include "numbers.h"

#define DEVICE inline
#define KERNEL(threads, blocks) extern "C" void
#define SHARED(Type, name) Type& name = host::shared_object<Type>()
// Stands in `run_pass<Op>`, where all that a launch must know of the kernel is at hand.
#define DYNAMIC_SHARED(name)                                                                         \
  using Look_ = LookBack<typename Op::State, Op::Tile::CHANNELS>;                                    \
  unsigned char* name = host::shared_memory({SHARED_BYTES<Op>, Op::Tile::THREADS, Op::Tile::STAGES,  \
                                             Op::Tile::POSITIONS, Op::Tile::CHANNELS, Look_::TILE,   \
                                             Look_::GROUP_WORDS, GROUP})

namespace host {
inline unsigned char* shared_memory(const Needs& needs) {
  if (machine.probing) throw needs;
  return current->block->shared;
}
// A block's shared memory as what a kernel takes it for: poisoned, and as large as the launch says.
template <class T>
T& shared_object() {
  if (sizeof(T) > current->block->shared_bytes) fault("shared memory is larger than the launch gives");
  return *reinterpret_cast<T*>(current->block->shared);
}
// How far the look-back reached: [0] among tiles, [1] among groups.
inline u64 distances[2][33];
} // namespace host

struct alignas(16) ulonglong2 { u64 x, y; };

#define threadIdx (host::current->index)
#define blockIdx (host::current->block->index)
#define gridDim (host::machine.grid)
#define __ffs __builtin_ffs

template <int BYTES>
DEVICE void copy_async(void* shared, const void* global) { host::ask_for_copy(shared, global, BYTES); }
DEVICE void copy_async_commit() { host::commit_copies(); }
template <int PENDING>
DEVICE void copy_async_wait() {
  if (host::mutant != host::NO_COPY_WAIT) host::wait_for_copies(PENDING);
}

DEVICE Word load_word(const Word* p) { return host::load(p); }
DEVICE void store_word(Word* p, Word w) { host::store(p, w); }
DEVICE u32 load_relaxed(const u32* p) {
  host::before_load();
  return *p;
}
DEVICE void looked_back(int level, int distance) { host::distances[level][distance]++; }
DEVICE u32 add_atomic(u32* p, u32 v) { return host::add(p, v); }

DEVICE void store_streaming(u16* p, u16 v) { host::store_output(p, v); }
DEVICE void store_streaming(u32* p, u32 v) { host::store_output(p, v); }
DEVICE void store_streaming(u64* p, u64 v) { host::store_output(p, v); }
DEVICE void store_streaming(ulonglong2* p, ulonglong2 v) { host::store_output(p, v); }

template <class T>
DEVICE T load_often(const T* p) { return host::load_input(p); }
DEVICE u16 load_once(const u16* p) { return host::load_input(p); }
DEVICE u32 load_once(const u32* p) { return host::load_input(p); }
DEVICE u64 load_once(const u64* p) { return host::load_input(p); }
DEVICE ulonglong2 load_once(const ulonglong2* p) { return host::load_input(p); }

template <class T>
DEVICE void store_kept(T* p, T v) { host::store_output(p, v); }

DEVICE int opaque(int v) { return v; }
DEVICE void block_barrier() {
  if (host::has_barrier(0)) host::barrier(0, host::machine.launch.needs.threads, true);
}
template <int ID, int THREADS>
DEVICE void barrier_arrive() {
  if (host::has_barrier(ID)) host::barrier(ID, THREADS, false);
}
template <int ID, int THREADS>
DEVICE void barrier_wait() {
  if (host::has_barrier(ID)) host::barrier(ID, THREADS, true);
}
DEVICE u32 first_lane(u32 v) { return host::broadcast(v); }
DEVICE float lane_across(float v, int mask) {
  const u64 bits = host::exchange(host::bit_cast<u32>(v), threadIdx.x % 32 ^ u32(mask));
  return host::bit_cast<float>(u32(bits));
}
DEVICE double lane_across(double v, int mask) {
  return host::bit_cast<double>(host::exchange(host::bit_cast<u64>(v), threadIdx.x % 32 ^ u32(mask)));
}
DEVICE u32 warp_vote(bool predicate) { return host::vote(predicate); }

DEVICE u32 bits_of(float v) { return host::bit_cast<u32>(v); }
DEVICE u64 bits_of(double v) { return host::bit_cast<u64>(v); }
DEVICE float f32_of(u32 v) { return host::bit_cast<float>(v); }
DEVICE double f64_of(u64 v) { return host::bit_cast<double>(v); }
DEVICE float bf16_to_f32(u16 bits) { return f32_of(u32(bits) << 16); }
DEVICE u16 f32_to_bf16(float v) { return host::to_bf16(v); }
DEVICE float f16_to_f32(u16 bits) { return host::from_f16(bits); }
DEVICE u16 f32_to_f16(float v) { return host::to_f16(v); }

DEVICE void sine_cosine_pi(double v, double& sine, double& cosine) {
  const double turn = 3.141592653589793 * fmod(v, 2);
  sine = sin(turn), cosine = cos(turn);
}

DEVICE float exp2_fast(float v) { return exp2f(v); }
DEVICE float inverse_fast(float v) { return 1.f / v; }
DEVICE float rsqrt_fast(float v) { return 1.f / sqrtf(v); }
