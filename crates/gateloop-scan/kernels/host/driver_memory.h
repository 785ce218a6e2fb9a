// Device memory: poisoned, and guarded on both sides.
#pragma once
#include "buffers.h"
#include <map>

namespace driver {

struct Allocation {
  unsigned char* whole; // with the guards
  size_t bytes, room;   // without and with them
};

class Memory {
public:
  size_t most = size_t(8) << 30; // bytes that there are

  // Null where there is no room.
  unsigned char* allocate(size_t bytes) {
    if (bytes > most - used) return nullptr;
    const size_t room = (bytes + 2 * GUARD + GUARD - 1) / GUARD * GUARD;
    auto* whole = static_cast<unsigned char*>(aligned_alloc(GUARD, room));
    if (!whole) return nullptr;
    memset(whole, GUARDED, GUARD);
    memset(whole + GUARD, host::POISON, bytes);
    memset(whole + GUARD + bytes, GUARDED, room - GUARD - bytes);
    all[whole + GUARD] = {whole, bytes, room};
    used += bytes;
    return whole + GUARD;
  }

  // False for what was never allocated, or is already free.
  bool free(unsigned char* at) {
    const auto found = all.find(at);
    if (found == all.end()) return false;
    check(found->second);
    memset(at, host::POISON, found->second.bytes);
    used -= found->second.bytes;
    ::free(found->second.whole);
    all.erase(found);
    return true;
  }

  bool holds(const unsigned char* at, size_t bytes) const {
    auto next = all.upper_bound(const_cast<unsigned char*>(at));
    if (next == all.begin()) return false;
    const auto& [begin, allocation] = *--next;
    return at + bytes <= begin + allocation.bytes;
  }

  void check_all() const {
    for (const auto& [at, allocation] : all) check(allocation);
  }

  // Tells the kernels what they may touch.
  void show() const {
    for (const auto& [at, allocation] : all) host::buffers.push_back({at, at + allocation.bytes, true});
  }

private:
  static constexpr size_t GUARD = 256; // what a driver aligns to
  static constexpr unsigned char GUARDED = 0xA5;
  std::map<unsigned char*, Allocation> all;
  size_t used = 0;

  static void check(const Allocation& allocation) {
    const auto& [whole, bytes, room] = allocation;
    for (size_t i = 0; i < GUARD; i++) {
      if (whole[i] != GUARDED) host::fault("wrote before an allocation");
    }
    for (size_t i = GUARD + bytes; i < room; i++) {
      if (whole[i] != GUARDED) host::fault("wrote behind an allocation");
    }
  }
};

} // namespace driver
