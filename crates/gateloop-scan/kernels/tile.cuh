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

struct alignas(16) Place {
  u32 column; // or NO_TILE
  u32 chunk, batch;
  u32 channel; // first channel of the tile
};
constexpr u32 NO_TILE = 0xffffffffu;

// A tile that a block has taken. Found by one warp for all: what costs a division or a product of 64 bits
// would otherwise be most of the work.
template <int ARRAYS>
struct Taken {
  Place place;
  int left;     // positions from the tile's first to the end of the sequence, at most one more than a tile has
  u32 is_plain; // see `run_pass`
  int first_checkpoint;   // the row of the first one in the tile, of an operator that writes them
  const void* at[ARRAYS]; // the tile's first element in each array
};

// WARPS data warps take ROWS consecutive positions each; LANE channels a lane, and as many more warps to
// look back for 32 channels each, and one that takes tiles; STAGES tiles in shared memory; BLOCKS of a
// multiprocessor.
template <int WARPS_, int ROWS_, int LANE_, int STAGES_, int BLOCKS_>
struct Geometry {
  static constexpr int WARPS = WARPS_, ROWS = ROWS_, LANE = LANE_, STAGES = STAGES_, BLOCKS = BLOCKS_;
  static constexpr int DATA_THREADS = 32 * WARPS;
  static constexpr int THREADS = DATA_THREADS + 32 * LANE + 32;
  static constexpr int POSITIONS = WARPS * ROWS, CHANNELS = 32 * LANE;
  DEVICE static i64 start(const Place& place) { return i64(place.chunk) * POSITIONS; }
};

DEVICE bool begins(const Starts& starts, u32 batch, i64 position) {
  return starts.at && position >= starts.first && position <= starts.last &&
         starts.at[batch * starts.batch + position * starts.row] != 0;
}

template <class E>
DEVICE const void* tile_at(const View<E>& view, const Place& place, i64 position) {
  return view.at + i64(place.batch) * view.batch + position * view.row + place.channel;
}

// Asks for a tile, of which `left` rows are there, `row` elements apart. The others, and channels outside the
// array, are left as they are: nobody reads them into a result.
template <class E, class G>
DEVICE void stage(unsigned char* shared, const void* tile, i64 row, const Shape& shape, const Place& place,
                  int left) {
  const int rows = left < G::POSITIONS ? left : G::POSITIONS;
  constexpr int CHANNELS = G::CHANNELS, BYTES = CHANNELS * int(sizeof(E));
  const E* base = static_cast<const E*>(tile);
  if (shape.aligned) {
    // A thread copies the same part of every so many-th row.
    constexpr int PER_ROW = BYTES / 16, PER_COPY = 16 / int(sizeof(E)), STEP = G::DATA_THREADS / PER_ROW;
    static_assert(32 % PER_ROW == 0, "a warp copies whole rows");
    const int first = opaque(threadIdx.x / PER_ROW), channel = threadIdx.x % PER_ROW * PER_COPY;
    const i64 step = opaque(STEP) * row;
    if (place.channel + channel >= shape.channels) return;
    const E* from = base + first * row + channel;
    unsigned char* to = shared + threadIdx.x * 16;
#pragma unroll
    for (int r = 0; r < G::POSITIONS; r += STEP) {
      if (first + r < rows) copy_async<16>(to + r * BYTES, from);
      from += step;
    }
  } else {
#pragma unroll 4
    for (int i = opaque(threadIdx.x); i < rows * CHANNELS; i += G::DATA_THREADS) {
      const int r = i / CHANNELS, channel = i % CHANNELS;
      if (place.channel + channel < shape.channels) {
        E* to = reinterpret_cast<E*>(shared) + i;
        if constexpr (sizeof(E) >= 4) {
          // A complex number of 16 bits a part is aligned to 4, of 64 bits to 16: its own size.
          copy_async<sizeof(E)>(to, base + r * row + channel);
        } else {
          *to = base[r * row + channel];
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

// A lane's channels of some rows of an output's tile, one after another. Channels outside the array are
// dropped.
template <class E, int N>
struct Rows {
  E* at; // of the next row
  i64 step;
  int left; // channels from this lane's first
  bool aligned;

  // Rows are `row` elements apart; they come in this order, or from the last to the first with `step` -1.
  DEVICE Rows(const void* tile, i64 row, const Shape& shape, const Place& place, int lane, int first, int step_ = 1)
      : at(static_cast<E*>(const_cast<void*>(tile)) + opaque(first) * row + lane * N), step(step_ * row),
        left(int(shape.channels - place.channel) - lane * N), aligned(shape.aligned) {}

  DEVICE void skip() { at += step; }
  DEVICE void write(const Wide<E> (&from)[N]) {
    E* to = at;
    at += step;
    if constexpr (N > 1) {
      if (aligned) {
        if (left > 0) store_elements<E, N>(to, from);
        return;
      }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
      if (i < left) store_element(to + i, from[i]);
    }
  }
};

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
