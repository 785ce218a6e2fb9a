// The allocator of libtorch's tensors on the CPU, when it is the pool of ../src/pool.

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <cstddef>
#include <string>

#include "guarded.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define GATELOOP_HAS_MMAP 1
#endif

namespace {

using Take = void* (*)(size_t);
using GiveBack = void (*)(void*);

struct {
  char* base;
  size_t len;
  Take take;
  GiveBack give_back;
} pool;

// Where a piece came from is told by its address.
void release(void* piece) {
  char* const p = static_cast<char*>(piece);
  if (p >= pool.base && p < pool.base + pool.len) {
    pool.give_back(piece);
  } else {
    c10::free_cpu(piece);
  }
}

class PoolAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t n) override {
    void* piece = pool.take(n);
    if (piece == nullptr) {
      piece = c10::alloc_cpu(n);
    }
    return {piece, piece, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }
};

}  // namespace

extern "C" {

// Addresses without memory, as many as the machine has memory: `*len` bytes, or null.
void* gateloop_pool_reserve(size_t* len) {
#ifdef GATELOOP_HAS_MMAP
  const size_t page = sysconf(_SC_PAGESIZE);
  *len = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  void* const base = mmap(nullptr, *len, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (base == MAP_FAILED) {
    return nullptr;
  }
#ifdef MADV_HUGEPAGE
  // A refusal only costs time.
  (void)madvise(base, *len, MADV_HUGEPAGE);
#endif
  return base;
#else
  (void)len;
  return nullptr;
#endif
}

int gateloop_pool_install(void* base, size_t len, Take take, GiveBack give_back,
                          std::string* error) {
  return guarded(error, [&] {
    pool = {static_cast<char*>(base), len, take, give_back};
    static PoolAllocator allocator;
    // Above the priority of libtorch's own, which would otherwise win by order of registration.
    c10::SetAllocator(c10::DeviceType::CPU, &allocator, /*priority=*/1);
    return 0;
  });
}

void gateloop_pool_decommit(void* start, size_t len) {
#ifdef GATELOOP_HAS_MMAP
  (void)madvise(start, len, MADV_DONTNEED);
#else
  (void)start, (void)len;
#endif
}

}  // extern "C"
