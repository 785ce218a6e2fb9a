// What a tile tells later tiles of one channel: its map h -> a h + x, then the state h behind it.
//
// The numbers travel in 16-byte words, each with a tag of its own, so that a reader knows from a word
// alone whether it holds them: no fence, no flag beside the data, one trip to the L2 cache.
#pragma once
#include "tile.cuh"

// A tag is 8 epoch + 4 cut + status. Epochs differ from launch to launch, so that what the last
// launch left in the workspace reads as nothing; zero is no tag.
constexpr u32 MAP = 1, STATE = 2, CUT = 4, EPOCHS = 1u << 29;

// Packs P = 1 or 2 parts of each of a, x and h: three f32 to a word, or one f64.
template <class R> struct Packing;
template <> struct Packing<float> {
  static constexpr int PER_WORD = 3;
  DEVICE static Word pack(const float* v, u32 tag) {
    return {u64(bits_of(v[0])) | u64(bits_of(v[1])) << 32, u64(bits_of(v[2])) | u64(tag) << 32};
  }
  DEVICE static void unpack(Word w, float* v) {
    v[0] = f32_of(u32(w.low));
    v[1] = f32_of(u32(w.low >> 32));
    v[2] = f32_of(u32(w.high));
  }
};
template <> struct Packing<double> {
  static constexpr int PER_WORD = 1;
  DEVICE static Word pack(const double* v, u32 tag) { return {bits_of(v[0]), u64(tag) << 32}; }
  DEVICE static void unpack(Word w, double* v) { v[0] = f64_of(w.low); }
};

template <class S> struct PartsOf {
  using Real = S;
  static constexpr int COUNT = 1;
  DEVICE static void put(S v, Real* to) { to[0] = v; }
  DEVICE static S get(const Real* from) { return from[0]; }
};
template <class R> struct PartsOf<Complex<R>> {
  using Real = R;
  static constexpr int COUNT = 2;
  DEVICE static void put(Complex<R> v, R* to) { to[0] = v.re, to[1] = v.im; }
  DEVICE static Complex<R> get(const R* from) { return {from[0], from[1]}; }
};

template <class S>
struct Record {
  using Parts = PartsOf<S>;
  using Real = typename Parts::Real;
  using Pack = Packing<Real>;
  static constexpr int VALUES = 3 * Parts::COUNT;
  static constexpr int WORDS = VALUES / Pack::PER_WORD;
  // The words that hold some part of the map, and the first that holds some part of the state.
  static constexpr int MAP_WORDS = (2 * Parts::COUNT + Pack::PER_WORD - 1) / Pack::PER_WORD;
  static constexpr int STATE_WORD = 2 * Parts::COUNT / Pack::PER_WORD;

  S a, x, h;
  bool has_map, has_state, cut;

  // Words of neighbouring channels are neighbours: `at` is this channel's first, `stride` apart.
  DEVICE static void publish(Word* at, int stride, S a, S x, S h, u32 tag, int from, int to) {
    Real values[VALUES];
    Parts::put(a, values);
    Parts::put(x, values + Parts::COUNT);
    Parts::put(h, values + 2 * Parts::COUNT);
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
      if (w >= from && w < to) store_word(at + w * stride, Pack::pack(values + w * Pack::PER_WORD, tag));
    }
  }
  DEVICE static void publish_map(Word* at, int stride, S a, S x, u32 epoch, bool cut) {
    publish(at, stride, a, x, Constant<S>::zero(), epoch * 8 + (cut ? CUT | MAP : MAP), 0, MAP_WORDS);
  }
  // After `publish_map`, or alone: a reader that sees a state has no use for the map.
  DEVICE static void publish_state(Word* at, int stride, S a, S x, S h, u32 epoch, bool cut) {
    publish(at, stride, a, x, h, epoch * 8 + (cut ? CUT | STATE : STATE), STATE_WORD, WORDS);
  }

  DEVICE void load(const Word* at, int stride, u32 epoch) {
    Word words[WORDS];
#pragma unroll
    for (int w = 0; w < WORDS; w++) words[w] = load_word(at + w * stride);
    Real values[VALUES];
    has_map = has_state = true;
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
      Pack::unpack(words[w], values + w * Pack::PER_WORD);
      const u32 tag = u32(words[w].high >> 32);
      const bool ours = tag >> 3 == epoch;
      if (w < MAP_WORDS) has_map = has_map && ours;
      if (w >= STATE_WORD) has_state = has_state && ours && (tag & STATE);
    }
    cut = (words[0].high >> 32 & CUT) != 0;
    a = Parts::get(values);
    x = Parts::get(values + Parts::COUNT);
    h = Parts::get(values + 2 * Parts::COUNT);
  }
};
