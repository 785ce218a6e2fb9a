// What a scan is told.
#pragma once
#include "pass.cuh"

template <class E>
struct ScanParams {
  View<const E> a, b;
  View<E> h;
  const Wide<E>* h0; // [B, C], or null for a state of zero
  Wide<E>* h_last;   // [B, C], or null
  Starts starts;
  Shape shape;
};
