// The arrays in global memory that a launch may touch.
#pragma once
#include "machine.h"

namespace host {

struct Buffer {
  const unsigned char *begin, *end;
  bool is_output;
};
inline std::vector<Buffer> buffers;
// Whether the kernels may also touch what nobody told of: the arrays of a library with memory of its own.
inline bool any_memory = false;

inline bool lies_in_buffer(const void* at, size_t bytes, bool to_write) {
  if (any_memory) return true;
  auto* byte = static_cast<const unsigned char*>(at);
  for (const Buffer& buffer : buffers) {
    if (byte >= buffer.begin && byte + bytes <= buffer.end && (buffer.is_output || !to_write)) return true;
  }
  return false;
}

template <class T>
void store_output(T* p, T v) {
  if (size_t(p) % sizeof(T)) fault("a store is not aligned to its bytes");
  if (!lies_in_buffer(p, sizeof(T), true)) fault("a store goes outside the outputs");
  *p = v;
  if (machine.options.weak && machine.random.one_in(64)) pause();
}

template <class T>
T load_input(const T* p) {
  if (size_t(p) % sizeof(T)) fault("a load is not aligned to its bytes");
  if (!lies_in_buffer(p, sizeof(T), false)) fault("a load comes from outside the arrays");
  return *p;
}

} // namespace host
