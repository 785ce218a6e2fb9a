// Arrays of no more than a length, and launches of kernels that need no workspace.
#pragma once
#include "cases.h"

// Numbers with guards that may be read or written.
template <class E>
struct Flat {
  Array<E> array;
  size_t size;
  explicit Flat(size_t size_, Layout layout = ALIGNED) : array(1, 1, int(size_), layout), size(size_) {}
  E& operator[](size_t at) { return array.first[at]; }
  double value(size_t at) { return Number<E>::from((*this)[at]).real(); }
  void fill(double scale = 1) {
    for (size_t at = 0; at < size; at++) (*this)[at] = Number<E>::to(scale * gauss_pair());
  }
  void copy(const std::vector<double>& from) {
    for (size_t at = 0; at < size; at++) (*this)[at] = E(from[at]);
  }
  std::vector<double> values() {
    return std::vector<double>(array.first, array.first + size);
  }
  E* output() { return array.output().at; }
  const E* input() { return array.input().at; }
};

constexpr int PLAIN_THREADS = 256;

// False where it ended in a deadlock.
template <class P>
bool launch_plain(const Case& c, PlainKernel<P> kernel, P params, size_t shared_bytes, u32 grid) {
  host::Needs needs = {};
  needs.shared_bytes = int(shared_bytes), needs.threads = PLAIN_THREADS;
  return launch_blocks(c, kernel, params, needs, grid, random_options(3));
}

template <class E>
void check_outside(const Case& c, const char* name, Flat<E>& flat) {
  if (!flat.array.is_clean_outside()) fail(c, "wrote outside %s", name);
}
