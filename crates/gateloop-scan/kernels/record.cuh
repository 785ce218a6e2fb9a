// What blocks tell each other: a few numbers of one channel, in 16-byte words.
//
// Each word has a tag of its own, so that a reader knows from a word alone whether it holds them: no
// fence, no flag beside the data, one trip to the L2 cache.
#pragma once
#include "tile.cuh"

// A tag is 8 epoch + 4 cut + kind. Epochs differ from launch to launch, so that what the last launch
// left in the workspace reads as nothing; zero is no tag.
constexpr u32 MAP = 1, WHOLE = 2, CUT = 4, EPOCHS = 1u << 29;

// Three f32 to a word, or one f64. Bits to spare hold the tag once more, and a reader checks them all:
// ptxas loads what is used and no more, and two narrow loads are not one wide one (seen, not feared).
template <class R> struct Packing;
template <> struct Packing<float> {
  static constexpr int PER_WORD = 3;
  DEVICE static Word pack(const float* v, int count, u32 tag) {
    const u32 second = count > 1 ? bits_of(v[1]) : tag, third = count > 2 ? bits_of(v[2]) : tag;
    return {u64(bits_of(v[0])) | u64(second) << 32, u64(third) | u64(tag) << 32};
  }
  DEVICE static bool unpack(Word w, int count, float* v) {
    const u32 second = u32(w.low >> 32), third = u32(w.high), tag = u32(w.high >> 32);
    v[0] = f32_of(u32(w.low));
    if (count > 1) v[1] = f32_of(second);
    if (count > 2) v[2] = f32_of(third);
    return (count > 1 || second == tag) && (count > 2 || third == tag);
  }
};
template <> struct Packing<double> {
  static constexpr int PER_WORD = 1;
  DEVICE static Word pack(const double* v, int, u32 tag) { return {bits_of(v[0]), u64(tag) | u64(tag) << 32}; }
  DEVICE static bool unpack(Word w, int, double* v) {
    v[0] = f64_of(w.low);
    return u32(w.high) == u32(w.high >> 32);
  }
};

// A number of the state as its real parts.
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

// COUNT numbers under one tag. Words of neighbouring channels are neighbours: word w of a channel is
// `w * stride` behind its first.
template <class S, int COUNT>
struct Record {
  using Parts = PartsOf<S>;
  using Real = typename Parts::Real;
  using Pack = Packing<Real>;
  static constexpr int VALUES = COUNT * Parts::COUNT;
  static constexpr int WORDS = (VALUES + Pack::PER_WORD - 1) / Pack::PER_WORD;

  S number[COUNT];
  u32 tag; // of this epoch and the same in all words, or 0

  DEVICE static void store(Word* at, int stride, const S (&number)[COUNT], u32 tag) {
    Real values[VALUES];
#pragma unroll
    for (int i = 0; i < COUNT; i++) Parts::put(number[i], values + i * Parts::COUNT);
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
      store_word(at + w * stride, Pack::pack(values + w * Pack::PER_WORD, VALUES - w * Pack::PER_WORD, tag));
    }
  }

  DEVICE void load(const Word* at, int stride, u32 epoch) {
    Word words[WORDS];
#pragma unroll
    for (int w = 0; w < WORDS; w++) words[w] = load_word(at + w * stride);
    Real values[VALUES];
    tag = u32(words[0].high >> 32);
    bool whole = tag >> 3 == epoch;
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
      const bool sound = Pack::unpack(words[w], VALUES - w * Pack::PER_WORD, values + w * Pack::PER_WORD);
      whole = whole && sound && u32(words[w].high >> 32) == tag;
    }
    if (!whole) tag = 0;
#pragma unroll
    for (int i = 0; i < COUNT; i++) number[i] = Parts::get(values + i * Parts::COUNT);
  }
};

// The tag of the first word alone, for a look from afar.
DEVICE u32 glance(const Word* at, u32 epoch) {
  const u32 tag = u32(load_word(at).high >> 32);
  return tag >> 3 == epoch ? tag : 0;
}
