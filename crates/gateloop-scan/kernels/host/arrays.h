// Arrays of the tests: poisoned, guarded, with rows and an address as awkward as wanted.
#pragma once
#include "../tile.cuh"
#include <complex>

using cd = std::complex<double>;

// The product as the kernels mean it: std::complex repairs infinities.
inline cd product(cd a, cd b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

// How a type of elements stands to numbers. `unit` is what rounding to it may lose, for types narrower
// than what is computed with; `bound` is the error allowed of the running magnitude.
template <class E> struct Number;
template <> struct Number<float> {
  static constexpr bool IS_COMPLEX = false;
  static constexpr double unit = 0, bound = 8e-6, epsilon = 0x1p-24;
  static float to(cd v) { return float(v.real()); }
  static cd from(float v) { return double(v); }
};
template <> struct Number<double> {
  static constexpr bool IS_COMPLEX = false;
  static constexpr double unit = 0, bound = 1e-13, epsilon = 0x1p-53;
  static double to(cd v) { return v.real(); }
  static cd from(double v) { return v; }
};
template <> struct Number<bf16> {
  static constexpr bool IS_COMPLEX = false;
  static constexpr double unit = 0x1p-8, bound = 8e-6, epsilon = 0x1p-24;
  static bf16 to(cd v) { return {host::to_bf16(float(v.real()))}; }
  static cd from(bf16 v) { return double(bf16_to_f32(v.bits)); }
};
template <> struct Number<f16> {
  static constexpr bool IS_COMPLEX = false;
  static constexpr double unit = 0x1p-11, bound = 8e-6, epsilon = 0x1p-24;
  static f16 to(cd v) { return {host::to_f16(float(v.real()))}; }
  static cd from(f16 v) { return double(f16_to_f32(v.bits)); }
};
template <class R> struct Number<Complex<R>> {
  static constexpr bool IS_COMPLEX = true;
  static constexpr double unit = Number<R>::unit, bound = Number<R>::bound, epsilon = Number<R>::epsilon;
  static Complex<R> to(cd v) { return {Number<R>::to(v.real()), Number<R>::to(v.imag())}; }
  static cd from(Complex<R> v) { return {Number<R>::from(v.re).real(), Number<R>::from(v.im).real()}; }
};

enum Layout { ALIGNED, PADDED_ALIGNED, PADDED, MISALIGNED, LAYOUTS };

// [B, T, C] by position of the pass: of a reversed array, row 0 of the pass is the last in memory.
template <class E>
struct Array {
  int batch, rows, channels;
  i64 row, batch_stride;
  bool reversed;
  std::vector<unsigned char> memory;
  E* first; // of the lowest row

  Array(int batch_, int rows_, int channels_, Layout layout = ALIGNED, bool reversed_ = false)
      : batch(batch_), rows(rows_), channels(channels_), reversed(reversed_) {
    const int aligned = sizeof(E) >= 16 ? 1 : 16 / int(sizeof(E));
    const int pad = layout == PADDED_ALIGNED ? aligned : layout == PADDED ? 3 : 0;
    row = channels + pad;
    batch_stride = row * rows + 2 * pad;
    const size_t bytes = size_t(batch_stride) * batch * sizeof(E);
    memory.assign(bytes + 3 * host::GUARD, host::POISON);
    auto* at = reinterpret_cast<unsigned char*>((size_t(memory.data()) + host::GUARD + 15) / 16 * 16);
    first = reinterpret_cast<E*>(at) + (layout == MISALIGNED ? 1 : 0);
  }

  Array(Array&&) = default; // `first` moves along; a copy's would point to the original

  E& at(int b, i64 t, int c) { return first[b * batch_stride + (reversed ? rows - 1 - t : t) * row + c]; }
  cd get(int b, i64 t, int c) { return Number<E>::from(at(b, t, c)); }
  bool is_aligned() const {
    return size_t(first) % 16 == 0 && row * sizeof(E) % 16 == 0 && batch_stride * sizeof(E) % 16 == 0;
  }

  View<E> view() { return {reversed ? first + (rows - 1) * row : first, batch_stride, reversed ? -row : row}; }
  View<const E> input() {
    show(false);
    const View<E> v = view();
    return {v.at, v.batch, v.row};
  }
  View<E> output() {
    show(true);
    return view();
  }

  template <class F>
  void fill(F next) {
    for (int b = 0; b < batch; b++)
      for (int t = 0; t < rows; t++)
        for (int c = 0; c < channels; c++) at(b, t, c) = Number<E>::to(next());
  }

  // Whether all that lies outside [B, T, C] is still poison.
  bool is_clean_outside() {
    const unsigned char* byte = memory.data();
    const unsigned char* end = byte + memory.size();
    for (int b = 0; b < batch; b++) {
      for (int t = 0; t < rows; t++) {
        auto* from = reinterpret_cast<const unsigned char*>(first + b * batch_stride + t * row);
        for (; byte < from; byte++) if (*byte != host::POISON) return false;
        byte = from + channels * sizeof(E);
      }
    }
    for (; byte < end; byte++) if (*byte != host::POISON) return false;
    return true;
  }

private:
  void show(bool is_output) {
    host::buffers.push_back({memory.data() + host::GUARD / 2, memory.data() + memory.size(), is_output});
  }
};
