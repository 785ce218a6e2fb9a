// A few tokens: a thread has a channel and goes from token to token by itself, with nobody to wait for.
//
// What a launch of the persistent blocks begins and ends with (a ticket, a tile's way in and out of shared memory) takes
// longer than one token of a decoding step does.
#pragma once
#include "pass.cuh"

constexpr int STEP_THREADS = 128, STEP_TOKENS = 4;

// The channel of a thread. `shape.columns_per_row` blocks have the channels of one batch entry.
struct Lane {
  u32 batch;
  i64 channel;

  DEVICE static Lane of_thread(const Shape& shape) {
    const u32 batch = blockIdx.x / shape.columns_per_row;
    return {batch, i64(blockIdx.x - batch * shape.columns_per_row) * STEP_THREADS + threadIdx.x};
  }
  // Of a [B, C] array.
  DEVICE i64 state(const Shape& shape) const { return batch * i64(shape.channels) + channel; }
};

// The lane's elements of all tokens: asked for together.
template <class E>
DEVICE void load_tokens(const View<const E>& view, const Lane& lane, int tokens, E (&elements)[STEP_TOKENS]) {
  const E* at = view.at + lane.batch * view.batch + lane.channel;
#pragma unroll
  for (int t = 0; t < STEP_TOKENS; t++) {
    if (t < tokens) elements[t] = at[t * view.row];
  }
}
