// What the kernels ask of the machine: asynchronous copies, ordered memory, barriers.
//
// Everything that is not plain C++ is named here, once for a GPU (PTX, sm_80 and newer) and once,
// in the header that the host build puts first on its path, for a CPU.
#pragma once

#if defined(__CUDACC__)

#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define SHARED(Type, name) __shared__ Type name
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// Copies BYTES (4, 8 or 16, both addresses aligned to it) to shared memory without a register.
template <int BYTES>
DEVICE void copy_async(void* shared, const void* global) {
  const u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
  if constexpr (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(BYTES) : "memory");
  }
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most PENDING of the groups that this thread committed are under way.
template <int PENDING>
DEVICE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Sixteen bytes that other blocks see whole: never half of one store and half of another.
struct alignas(16) Word {
  u64 low, high;
};
DEVICE Word load_word(const Word* p) {
  Word w;
  asm volatile("{ .reg .b128 t; ld.relaxed.gpu.global.b128 t, [%2]; mov.b128 {%0, %1}, t; }"
               : "=l"(w.low), "=l"(w.high) : "l"(p) : "memory");
  return w;
}
DEVICE void store_word(Word* p, Word w) {
  asm volatile("{ .reg .b128 t; mov.b128 t, {%1, %2}; st.relaxed.gpu.global.b128 [%0], t; }" ::"l"(p),
               "l"(w.low), "l"(w.high) : "memory");
}
DEVICE u32 load_relaxed(const u32* p) {
  u32 v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
// How far a search went: counted by the host alone.
DEVICE void looked_back(int, int) {}
DEVICE u32 add_atomic(u32* p, u32 v) { return atomicAdd(p, v); }

// Outputs are not read again by the kernel that writes them: first to leave the cache.
DEVICE void store_streaming(u16* p, u16 v) { asm volatile("st.global.cs.u16 [%0], %1;" ::"l"(p), "h"(v) : "memory"); }
DEVICE void store_streaming(u32* p, u32 v) { asm volatile("st.global.cs.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
DEVICE void store_streaming(u64* p, u64 v) { asm volatile("st.global.cs.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory"); }
DEVICE void store_streaming(ulonglong2* p, ulonglong2 v) {
  asm volatile("st.global.cs.v2.u64 [%0], {%1, %2};" ::"l"(p), "l"(v.x), "l"(v.y) : "memory");
}

// What no thread reads again: of no use to the first cache.
DEVICE u16 load_once(const u16* p) {
  u16 v;
  asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(p));
  return v;
}
DEVICE u32 load_once(const u32* p) {
  u32 v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
DEVICE u64 load_once(const u64* p) {
  u64 v;
  asm volatile("ld.global.nc.L1::no_allocate.u64 %0, [%1];" : "=l"(v) : "l"(p));
  return v;
}
DEVICE ulonglong2 load_once(const ulonglong2* p) {
  ulonglong2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u64 {%0, %1}, [%2];" : "=l"(v.x), "=l"(v.y) : "l"(p));
  return v;
}

// What all blocks read.
template <class T>
DEVICE T load_often(const T* p) { return __ldg(p); }

// What another kernel reads at once: the cache may keep it.
template <class T>
DEVICE void store_kept(T* p, T v) { *p = v; }

// The same number, of which the compiler knows nothing: what is computed from it is computed here, and not once
// before a loop for as many registers as there are uses.
DEVICE int opaque(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// Barriers of whole warps, which may stand in different places of the program.
DEVICE void block_barrier() { asm volatile("bar.sync 0;" ::: "memory"); }
// Named barriers (1 to 15): who arrives goes on at once, who waits goes on when all `THREADS` have come;
// what those that arrived wrote to shared memory before is seen by those that waited.
template <int ID, int THREADS>
DEVICE void barrier_arrive() { asm volatile("bar.arrive %0, %1;" ::"n"(ID), "n"(THREADS) : "memory"); }
template <int ID, int THREADS>
DEVICE void barrier_wait() { asm volatile("bar.sync %0, %1;" ::"n"(ID), "n"(THREADS) : "memory"); }
DEVICE u32 first_lane(u32 v) { return __shfl_sync(0xffffffffu, v, 0); }
// What the lane has whose number differs in the bits of `mask`. By whole warps.
DEVICE float lane_across(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEVICE double lane_across(double v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEVICE u32 warp_vote(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }

DEVICE u32 bits_of(float v) { return __float_as_uint(v); }
DEVICE u64 bits_of(double v) { return u64(__double_as_longlong(v)); }
DEVICE float f32_of(u32 v) { return __uint_as_float(v); }
DEVICE double f64_of(u64 v) { return __longlong_as_double(i64(v)); }
DEVICE float bf16_to_f32(u16 bits) { return __uint_as_float(static_cast<u32>(bits) << 16); }
DEVICE u16 f32_to_bf16(float v) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return bits;
}
DEVICE float f16_to_f32(u16 bits) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
  return v;
}
DEVICE u16 f32_to_f16(float v) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return bits;
}

// To about two units in the last place, which is what a gate needs of them. One instruction each: numbers
// below 2^-126 count as zero.
DEVICE float exp2_fast(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
DEVICE float inverse_fast(float v) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
DEVICE float rsqrt_fast(float v) {
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}

// Of pi times v; unlike sin and cos it needs no memory of its own for large v.
DEVICE void sine_cosine_pi(double v, double& sine, double& cosine) { sincospi(v, &sine, &cosine); }

#else
#include "host_device.h"
#endif
