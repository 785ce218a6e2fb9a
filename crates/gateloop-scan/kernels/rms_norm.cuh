// The root-mean-square norm: y = x / length(x) sqrt(d) gamma, row by row.
#pragma once
#include "rows.cuh"

// What keeps a length from zero: length(x) = max(|x|, 1e-12), or sqrt(|x|^2 + 1e-5).
enum Length : u32 { CLAMPED = 0, EPSILON = 1 };

template <class R>
struct RowLength {
  R inverse;
  bool turns; // with x: a length that was raised to the least one does not

  DEVICE static RowLength of(R squares, u32 kind) {
    if (kind == EPSILON) return {R(1) / sqrt(squares + R(1e-5)), true};
    const R length = sqrt(squares);
    return length > R(1e-12) ? RowLength{R(1) / length, true} : RowLength{R(1e12), false};
  }
};
