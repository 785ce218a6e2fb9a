// Asynchronous copies to shared memory, as late as they may be made, or at once.
//
// A copy that was waited for is made when its thread next comes to a barrier: its own thread might read
// it earlier, but no kernel here does, and so a barrier that is missing shows.
#pragma once
#include "buffers.h"

namespace host {

inline void make(const Copy& copy) { memcpy(copy.to, copy.from, size_t(copy.bytes)); }

inline void ask_for_copy(void* shared, const void* global, int bytes) {
  Thread& self = *current;
  auto* to = static_cast<unsigned char*>(shared);
  auto* from = static_cast<const unsigned char*>(global);
  if (size_t(to) % size_t(bytes) || size_t(from) % size_t(bytes)) fault("a copy is not aligned to its bytes");
  if (to < self.block->shared || to + bytes > self.block->shared + self.block->shared_bytes) {
    fault("a copy goes outside the shared memory of its block");
  }
  if (!lies_in_buffer(from, size_t(bytes), false)) fault("a copy comes from outside the arrays");
  const Copy copy = {to, from, bytes, self.group};
  if (machine.random.one_in(4)) {
    make(copy);
  } else {
    self.copies.push_back(copy);
  }
  if (machine.options.weak && machine.random.one_in(64)) pause();
}
inline void commit_copies() {
  Thread& self = *current;
  self.group++;
  if (!self.copies.empty() && machine.random.one_in(8)) {
    const size_t early = machine.random.below(u32(self.copies.size()));
    make(self.copies[early]);
    self.copies.erase(self.copies.begin() + i64(early));
  }
}
inline void wait_for_copies(u32 pending) {
  Thread& self = *current;
  if (self.group > pending + 1) self.due = self.group - 1 - pending;
}
inline void make_due_copies() {
  Thread& self = *current;
  size_t kept = 0;
  for (const Copy& copy : self.copies) {
    if (copy.group <= self.due) {
      make(copy);
    } else {
      self.copies[kept++] = copy;
    }
  }
  self.copies.resize(kept);
}

} // namespace host
