// A case: shape, layout, segments, decays; how a kernel is launched for it; how answers are judged.
#pragma once
#include "arrays.h"
#include "launching.h"
#include <algorithm>
#include <map>
#include <stdarg.h>

inline host::Random dice(12345);
inline double gauss() { return sqrt(-2 * log(dice.unit() + 1e-300)) * cos(6.283185307179586 * dice.unit()); }
inline cd gauss_pair() {
  const double re = gauss(), im = gauss();
  return {re, im};
}

enum Decays { UNIFORM, NEAR_ONE, SOME_ZERO, SIGNED, ONES, ZEROS, DECAYS };
enum Segments { NO_STARTS, FEW_STARTS, MANY_STARTS };

struct Case {
  const char* kernel;
  int batch, seqlen, channels;
  Layout layout = ALIGNED;
  Decays decays = UNIFORM;
  Segments segments = NO_STARTS;
  bool reversed = false, h0 = false, last = false, in_place = false, nan = false;
  u32 mode = 0;
  u32 most_blocks = 6;
  bool a_tile_a_block = false;

  static Case random(const char* kernel, int batch, int seqlen, int channels) {
    Case c = {kernel, batch, seqlen, channels};
    c.layout = Layout(dice.below(LAYOUTS));
    c.decays = Decays(dice.below(DECAYS));
    c.segments = Segments(dice.below(3));
    c.reversed = dice.one_in(2), c.h0 = dice.one_in(2), c.last = dice.one_in(2);
    c.in_place = dice.one_in(4), c.nan = c.segments != NO_STARTS && dice.one_in(2);
    c.mode = dice.one_in(2) ? 0 : dice.below(3);
    return c;
  }
};

inline cd decay_of(Decays kind, bool is_complex) {
  double size = dice.unit();
  if (kind == NEAR_ONE) size = 1 - 1e-3 * size;
  if (kind == SOME_ZERO && size < 0.3) size = 0;
  if (kind == SIGNED) size = 2 * size - 1;
  if (kind == ONES) size = 1;
  if (kind == ZEROS) size = 0;
  return is_complex ? std::polar(fabs(size), 6.283185307179586 * dice.unit()) : cd(size);
}
// The pre-activation of a gate: of all sizes, and zero.
inline cd gate_of(Decays kind, bool is_complex) {
  const double scale = kind == NEAR_ONE ? 8 : kind == ONES ? 100 : kind == ZEROS ? 0 : kind == SIGNED ? 1e-3 : 1;
  if (kind == SOME_ZERO && dice.one_in(3)) return 0;
  return is_complex ? scale * gauss_pair() : cd(scale * gauss());
}

// Segments by position of the pass. Bytes outside `first ..= last` may say start: nobody is to believe them.
struct Cuts {
  std::vector<u8> bytes;
  Starts starts = {};

  explicit Cuts(const Case& c) {
    if (c.segments == NO_STARTS) return;
    bytes.resize(size_t(c.batch) * c.seqlen + 2);
    for (u8& byte : bytes) byte = dice.one_in(c.segments == FEW_STARTS ? 40 : 3) ? u8(1 + dice.below(255)) : 0;
    starts = {bytes.data(), c.seqlen, 1, 0, c.seqlen - 1};
    if (c.reversed) starts = {bytes.data() + c.seqlen, c.seqlen, -1, 1, c.seqlen - 1};
  }
  bool at(int b, i64 t) const {
    return starts.at && t >= starts.first && t <= starts.last && starts.at[b * starts.batch + t * starts.row];
  }
};

// A state for each [B, C], with guards.
template <class S>
struct States {
  std::vector<S> all;
  int channels;
  explicit States(int batch, int channels_, int rows = 1)
      : all(size_t(batch) * rows * channels_ + 8), channels(channels_) {
    memset(static_cast<void*>(all.data()), host::POISON, all.size() * sizeof(S));
  }
  S* data() { return all.data() + 4; }
  S& at(i64 row, int c) { return data()[row * channels + c]; }
  void fill(bool is_zero = false) {
    for (size_t i = 4; i + 4 < all.size(); i++) all[i] = Number<S>::to(is_zero ? cd(0) : gauss_pair());
  }
  bool is_clean_outside() const {
    auto* bytes = reinterpret_cast<const unsigned char*>(all.data());
    const size_t guard = 4 * sizeof(S), size = all.size() * sizeof(S);
    for (size_t i = 0; i < guard; i++) {
      if (bytes[i] != host::POISON || bytes[size - 1 - i] != host::POISON) return false;
    }
    return true;
  }
};

struct Tally {
  u64 cases = 0, launches = 0, failures = 0, deadlocks = 0, numbers = 0;
  double worst = 0; // of the allowed error
};
inline Tally tally;

inline void fail(const Case& c, const char* format, ...) {
  const host::Options& o = host::machine.options;
  const host::Launch& l = host::machine.launch;
  if (++tally.failures <= 12) {
    printf("FAILURE %s [%d, %d, %d] layout %d decays %d segments %d reversed %d h0 %d last %d in_place %d nan %d "
           "mode %u: ",
           c.kernel, c.batch, c.seqlen, c.channels, c.layout, c.decays, c.segments, c.reversed, c.h0, c.last,
           c.in_place, c.nan, c.mode);
    va_list rest;
    va_start(rest, format);
    vprintf(format, rest);
    va_end(rest);
    printf(" (grid %u, resident %u, order %d, schedule %d, seed %llu)\n", l.grid, o.resident, o.order, o.schedule,
           o.seed);
    fflush(stdout);
  }
  if (host::mutant != host::NONE) _Exit(host::FAULT);
}

// The workspace of all launches, of whatever kernel and shape: never cleared.
struct SharedWorkspace {
  Control control = {};
  std::vector<Word> records;
  Workspace of(u64 words) {
    if (records.size() < words) records.resize(words + words / 2);
    return {&control, records.data(), records.size()};
  }
};
inline SharedWorkspace workspace;

inline host::Options random_options(u32 most_blocks) {
  host::Options o;
  o.resident = 1 + dice.below(most_blocks);
  o.order = host::Order(dice.below(3));
  o.schedule = host::Schedule(dice.below(4));
  o.seed = dice.next();
  return o;
}

inline Shape shape_of(const Case& c, const host::Needs& needs, bool aligned, int element_bytes) {
  Shape shape = {};
  shape.seqlen = c.seqlen;
  shape.channels = u32(c.channels);
  shape.columns_per_row = u32((c.channels + needs.channels - 1) / needs.channels);
  shape.columns = u32(c.batch) * shape.columns_per_row;
  shape.chunks = u32((c.seqlen + needs.positions - 1) / needs.positions);
  shape.aligned = aligned && c.channels * element_bytes % 16 == 0 && !dice.one_in(8);
  return shape;
}

// As many blocks as tiles, which then take one each, or fewer.
inline u32 choose_grid(const Case& c, Shape& shape, const host::Needs& needs) {
  const u32 tiles = shape.columns * shape.chunks, most = c.most_blocks < tiles ? c.most_blocks : tiles;
  const bool all = c.a_tile_a_block || (tiles <= 3 * most && dice.one_in(3));
  const u32 grid = all ? tiles : 1 + dice.below(most);
  shape.prefetch = grid == tiles ? 1 : u32(needs.stages);
  return grid;
}

// What each kernel that was launched asked for.
inline std::map<std::string, host::Needs> needed;

// False where it ended in a deadlock.
template <class P>
bool launch(const Case& c, Kernel<P> kernel, P params, const host::Needs& needs, host::Options options) {
  needed[c.kernel] = needs;
  const u32 grid = choose_grid(c, params.shape, needs);
  const Shape& shape = params.shape;
  const u32 groups = (shape.chunks + u32(needs.group) - 1) / u32(needs.group);
  const u64 column_words = shape.chunks * u64(needs.tile_words) + groups * u64(needs.group_words);
  const u64 words = shape.chunks == 1 ? 0 : shape.columns * column_words;
  const Workspace work = workspace.of(words);
  host::machine.options = options;
  // Records beyond what the shape needs are out of bounds.
  host::machine.launch = {c.kernel, grid, needs, work.records, words, &work.control->ticket};
  const u32 epoch = work.control->epoch;
  const Call<P> call = {kernel, params, work};
  const char* problem = host::run_all(&Call<P>::run, &call);
  host::buffers.clear();
  tally.launches++;
  if (host::mutant == host::SAME_EPOCH) workspace.control.epoch = epoch;
  if (problem) {
    tally.deadlocks++;
    fail(c, "deadlock: %s", problem);
    workspace = SharedWorkspace();
    return false;
  }
  return true;
}

// The same of blocks that do not meet.
template <class P>
bool launch_blocks(const Case& c, PlainKernel<P> kernel, P params, const host::Needs& needs, u32 grid,
                   host::Options options) {
  host::machine.options = options;
  host::machine.launch = {c.kernel, grid, needs, nullptr, 0, nullptr};
  const PlainCall<P> call = {kernel, params};
  const char* problem = host::run_all(&PlainCall<P>::run, &call);
  host::buffers.clear();
  tally.launches++;
  if (problem) tally.deadlocks++, fail(c, "deadlock: %s", problem);
  return !problem;
}

// The kernels of a few tokens.
template <class P>
bool launch(const Case& c, PlainKernel<P> kernel, P params, const host::Needs& needs, host::Options options) {
  params.shape.prefetch = 1;
  return launch_blocks(c, kernel, params, needs, params.shape.columns, options);
}

// One number against the reference: `allowed` is the error of the computation, `unit` that of the output's type.
inline bool agrees(cd got, cd expected, double allowed, double unit) {
  tally.numbers++;
  if (expected != expected) return got != got;
  // Beyond the numbers of 16 bits.
  const bool overflows = std::max(fabs(expected.real()), fabs(expected.imag())) > 65000;
  if (unit == Number<f16>::unit && overflows) return true;
  // The smallest f16 is half of 1e-7.
  const double least = unit > 0 ? 1e-7 : 1e-30;
  const double error = std::abs(got - expected), bound = allowed + unit * std::abs(expected) + least;
  if (!(error <= bound)) return false;
  if (unit == 0 && bound > 1e-30 && error / bound > tally.worst) tally.worst = error / bound;
  return true;
}

// The same, with a place to report.
struct Where {
  int batch, position, channel;
};
inline bool matches(const Case& c, const char* name, Where at, cd got, cd expected, double allowed, double unit) {
  if (agrees(got, expected, allowed, unit)) return true;
  fail(c, "%s[%d, %d, %d] is %g%+gi, not %g%+gi", name, at.batch, at.position, at.channel, got.real(), got.imag(),
       expected.real(), expected.imag());
  return false;
}
