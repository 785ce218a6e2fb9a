// A tile of a [B, T, C] array: some consecutive positions of the pass by the channels of one warp.
#pragma once
#include "element.cuh"

// Where an array lies. `row` may be negative: a pass from the last token to the first starts at the
// last row and steps back. Strides count elements; neighbouring channels are neighbours in memory.
template <class E>
struct View {
  E* at;
  i64 batch, row;
};

// Where a new segment begins, by position of the pass: `at[batch * b + row * position]` for the
// positions from `first` to `last`, nowhere if `at` is null.
struct Starts {
  const u8* at;
  i64 batch, row, first, last;
};

struct Shape {
  i64 seqlen;
  u32 channels;
  u32 columns;         // column = batch * (columns / B) + tile of channels
  u32 columns_per_row; // tiles of channels in one batch entry
  u32 chunks;          // tiles of positions
  u32 aligned;         // every array allows 16-byte accesses
  u32 prefetch;        // tiles that a block may hold at the start
};

struct Place {
  u32 column, chunk, batch;
  u32 channel; // first channel of the tile
  i64 start;   // first position of the tile
};

// WARPS data warps take ROWS consecutive positions each; LANE channels a lane, and as many more warps to
// look back for 32 channels each; STAGES tiles in shared memory; BLOCKS of a multiprocessor.
template <int WARPS_, int ROWS_, int LANE_, int STAGES_, int BLOCKS_>
struct Geometry {
  static constexpr int WARPS = WARPS_, ROWS = ROWS_, LANE = LANE_, STAGES = STAGES_, BLOCKS = BLOCKS_;
  static constexpr int DATA_THREADS = 32 * WARPS;
  static constexpr int THREADS = DATA_THREADS + 32 * LANE;
  static constexpr int POSITIONS = WARPS * ROWS, CHANNELS = 32 * LANE;
};

DEVICE bool begins(const Starts& starts, u32 batch, i64 position) {
  return starts.at && position >= starts.first && position <= starts.last &&
         starts.at[batch * starts.batch + position * starts.row] != 0;
}

// Asks for the rows `start + shift ..` of the tile's channels. Rows outside the sequence and channels
// outside the array are left as they are: nobody reads them into a result.
template <class E, class G>
DEVICE void stage(unsigned char* shared, const View<const E>& view, const Shape& shape, const Place& place,
                  int shift) {
  constexpr int CHANNELS = G::CHANNELS, BYTES = CHANNELS * int(sizeof(E));
  const E* base = view.at + place.batch * view.batch + place.channel;
  const i64 start = place.start + shift;
  if (shape.aligned) {
    constexpr int PER_ROW = BYTES / 16, PER_COPY = 16 / int(sizeof(E));
#pragma unroll 4
    for (int i = threadIdx.x; i < G::POSITIONS * PER_ROW; i += G::DATA_THREADS) {
      const int row = i / PER_ROW, channel = i % PER_ROW * PER_COPY;
      const i64 t = start + row;
      if (t >= 0 && t < shape.seqlen && place.channel + channel < shape.channels) {
        copy_async<16>(shared + row * BYTES + i % PER_ROW * 16, base + t * view.row + channel);
      }
    }
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < G::POSITIONS * CHANNELS; i += G::DATA_THREADS) {
      const int row = i / CHANNELS, channel = i % CHANNELS;
      const i64 t = start + row;
      if (t >= 0 && t < shape.seqlen && place.channel + channel < shape.channels) {
        E* to = reinterpret_cast<E*>(shared) + i;
        if constexpr (sizeof(E) >= 4) {
          // A complex number of 16 bits a part is aligned to 4, of 64 bits to 16: its own size.
          copy_async<sizeof(E)>(to, base + t * view.row + channel);
        } else {
          *to = base[t * view.row + channel];
        }
      }
    }
  }
}

// A lane's channels of a staged row.
template <class E, int N>
DEVICE void read_row(const unsigned char* shared, int row, int lane, Wide<E> (&to)[N]) {
  const E* at = reinterpret_cast<const E*>(shared) + (row * 32 + lane) * N;
  if constexpr (N == 1) {
    to[0] = widen(at[0]);
  } else {
    struct alignas(N * sizeof(E) < 16 ? N * sizeof(E) : 16) All { E element[N]; };
    const All all = *reinterpret_cast<const All*>(at);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = widen(all.element[i]);
  }
}

// Puts other numbers in the place of a lane's channels of a staged row.
template <class S, int N>
DEVICE void replace_row(unsigned char* shared, int row, int lane, const S (&from)[N]) {
  S* at = reinterpret_cast<S*>(shared) + (row * 32 + lane) * N;
#pragma unroll
  for (int i = 0; i < N; i++) at[i] = from[i];
}

// A lane's channels of one row of an output; those outside the array are dropped.
template <class E, int N>
DEVICE void write_row(const View<E>& view, const Shape& shape, const Place& place, i64 position, int lane,
                      const Wide<E> (&from)[N]) {
  const u32 channel = place.channel + lane * N;
  E* at = view.at + place.batch * view.batch + position * view.row + channel;
  if constexpr (N > 1) {
    if (shape.aligned) {
      if (channel < shape.channels) store_elements<E, N>(at, from);
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    if (channel + i < shape.channels) store_element(at + i, from[i]);
  }
}

// One channel's number in a [B, C] array of states; zero where there is none.
template <class S>
DEVICE S read_state(const S* states, const Shape& shape, const Place& place, u32 channel) {
  const bool there = states && place.channel + channel < shape.channels;
  return there ? states[i64(place.batch) * shape.channels + place.channel + channel] : Constant<S>::zero();
}
template <class S, int N>
DEVICE void write_state(S* states, const Shape& shape, const Place& place, int lane, const S (&from)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    const u32 channel = place.channel + lane * N + i;
    if (channel < shape.channels) states[i64(place.batch) * shape.channels + channel] = from[i];
  }
}
