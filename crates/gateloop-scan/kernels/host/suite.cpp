// The kernels on a CPU, against plain loops.
//
// `suite` runs everything, `suite grid` or `suite look_back` a part, `suite mutant NAME` enough to
// notice that the machine breaks a promise. A number behind a part is a seed for other cases. The exit
// status is 3 where something is wrong.
#include "scan_cases.h"
#include "gate_cases.h"
#include "heads_cases.h"
#include "norm_cases.h"
#include "silu_cases.h"
#include <chrono>

static const int SEQLENS[] = {1, 2, 31, 33, 63, 64, 65, 69, 70, 71, 129, 300, 1025};
static const int CHANNELS[] = {1, 3, 4, 31, 32, 33, 64, 65, 130};

// Tiles so small that a sequence has many, and blocks by the dozen: the ordinary ones rarely look far back.
#define TINY(name, Params, Op) \
  KERNEL(0, 0) name(const Params params, const Workspace work) { run_pass<Op>(params, params.shape, work); }
using Narrow = Geometry<1, 1, 1, 3, 2>;
using Low = Geometry<2, 1, 2, 3, 2>;
using ScanNarrow = Scan<float, Narrow>;
using ScanPair = Scan<Complex<double>, Narrow>;
using ScanLow = Scan<bf16, Low>;
using AdjointLow = ScanAdjoint<float, Low>;
using GateNarrow = GateLoop<float, MaxHeads, Narrow>;
using SimpleParams = GateLoopAdjointParams<float, Simple>;
using SimpleLow = GateLoopAdjoint<float, Simple, Low>;
using GateParams = GateLoopParams<float, MaxHeads>;
TINY(tiny_scan_f32, ScanParams<float>, ScanNarrow)
TINY(tiny_scan_c128, ScanParams<Complex<double>>, ScanPair)
TINY(tiny_scan_bf16, ScanParams<bf16>, ScanLow)
TINY(tiny_scan_adjoint_f32, ScanAdjointParams<float>, AdjointLow)
TINY(tiny_gate_loop_f32, GateParams, GateNarrow)
TINY(tiny_simple_gate_loop_adjoint_f32, SimpleParams, SimpleLow)

static u32 one_of = 1; // of so many cases of the grid
static u32 count_of_heads = 0, count_of_rows = 0, count_of_steps = 0;

template <class F>
static void grid(const char* kernel, F check) {
  u32 count = 0;
  for (int seqlen : SEQLENS) {
    for (int channels : CHANNELS) {
      if (count++ % one_of != 0) continue;
      check(Case::random(kernel, seqlen * channels < 20000 ? 1 + int(dice.below(2)) : 1, seqlen, channels));
    }
  }
}
#define SCANS(E, name)                                                                           \
  grid("scan_" #name, [](const Case& c) { check_scan<E>(c, scan_##name); });                     \
  grid("scan_adjoint_" #name, [](const Case& c) { check_scan_adjoint<E>(c, scan_adjoint_##name); })
#define GATES(E, Kind, name, type)                                                               \
  grid(#name "_" #type,                                                                          \
       [](const Case& c) { check_gate_loop<E, Kind>(c, name##_##type, name##_adjoint_##type); }); \
  grid(#name "_adjoint_" #type, [](const Case& c) { check_gate_loop_adjoint<E, Kind>(c, name##_adjoint_##type); })

// The other tiles: small ones of all, high and low ones of some. Forward passes go with adjoints of their kind.
#define SMALL_SCANS(E, type)                                                                     \
  grid("scan_" #type "_small", [](const Case& c) { check_scan<E>(c, scan_##type##_small); });    \
  grid("scan_adjoint_" #type "_small",                                                           \
       [](const Case& c) { check_scan_adjoint<E>(c, scan_adjoint_##type##_small); })
#define SMALL_GATES(E, Kind, name, type)                                                         \
  grid(#name "_" #type "_small", [](const Case& c) {                                             \
    check_gate_loop<E, Kind>(c, name##_##type##_small, name##_adjoint_##type##_small);           \
  });                                                                                            \
  grid(#name "_adjoint_" #type "_small",                                                         \
       [](const Case& c) { check_gate_loop_adjoint<E, Kind>(c, name##_adjoint_##type##_small); })

static void other_tiles() {
  grid("scan_f32_tall", [](const Case& c) { check_scan<float>(c, scan_f32_tall); });
  grid("scan_adjoint_f32_tall", [](const Case& c) { check_scan_adjoint<float>(c, scan_adjoint_f32_tall); });
  grid("scan_f32_short", [](const Case& c) { check_scan<float>(c, scan_f32_short); });
  grid("scan_adjoint_f32_short", [](const Case& c) { check_scan_adjoint<float>(c, scan_adjoint_f32_short); });
  grid("scan_c64_short", [](const Case& c) { check_scan<Complex<float>>(c, scan_c64_short); });
  grid("scan_adjoint_c64_short",
       [](const Case& c) { check_scan_adjoint<Complex<float>>(c, scan_adjoint_c64_short); });
  SMALL_SCANS(float, f32);
  SMALL_SCANS(double, f64);
  SMALL_SCANS(Complex<float>, c64);
  SMALL_SCANS(Complex<double>, c128);
  SMALL_SCANS(bf16, bf16);
  SMALL_SCANS(f16, f16);
  SMALL_GATES(float, MaxHeads, gate_loop, f32);
  SMALL_GATES(double, MaxHeads, gate_loop, f64);
  SMALL_GATES(bf16, MaxHeads, gate_loop, bf16);
  SMALL_GATES(f16, MaxHeads, gate_loop, f16);
  SMALL_GATES(float, Simple, simple_gate_loop, f32);
  SMALL_GATES(double, Simple, simple_gate_loop, f64);
  SMALL_GATES(bf16, Simple, simple_gate_loop, bf16);
  SMALL_GATES(f16, Simple, simple_gate_loop, f16);
}

// Chunks that fill a tile, or several, or parts of them.
static void heads() {
  for (int chunk_len : {1, 2, 31, 63, 64, 65, 100, 128, 130, 193}) {
    for (int decays = 0; decays < DECAYS; decays++) {
      if (count_of_heads++ % one_of != 0) continue;
      const auto sized = [&](const char* kernel, int channels) {
        Case c = {kernel, 1 + int(dice.below(2)), chunk_len, channels};
        c.decays = Decays(decays);
        return c;
      };
      check_weigh<float>(sized("heads_weigh_f32", 1), heads_weigh_f32);
      check_weigh<double>(sized("heads_weigh_f64", 1), heads_weigh_f64);
      check_weigh_adjoint<float>(sized("heads_weigh_adjoint_f32", 1), heads_weigh_adjoint_f32);
      check_weigh_adjoint<double>(sized("heads_weigh_adjoint_f64", 1), heads_weigh_adjoint_f64);
      const int width = 1 + int(dice.below(140));
      check_turn<float>(sized("heads_turn_f32", width), heads_turn_f32, heads_turn_adjoint_f32);
      check_turn<double>(sized("heads_turn_f64", width), heads_turn_f64, heads_turn_adjoint_f64);
    }
  }
}

// Rows of one warp and of several, in vectors and number by number.
static void rows() {
  for (int width : {1, 3, 4, 32, 36, 100, 512, 513, 1024, 1100, 2048, 4096}) {
    if (count_of_rows++ % one_of != 0) continue;
    const auto sized = [&](const char* kernel) {
      Case c = {kernel, 1, 1 + int(dice.below(40)), width};
      c.layout = dice.one_in(3) ? MISALIGNED : ALIGNED;
      c.mode = dice.below(2);
      return c;
    };
    check_rms_norm<float>(sized("rms_norm_f32"), rms_norm_f32);
    check_rms_norm<float>(sized("rms_norm_f32_bf16"), rms_norm_f32_bf16);
    check_rms_norm<double>(sized("rms_norm_f64"), rms_norm_f64);
    check_rms_norm_adjoint<float>(sized("rms_norm_adjoint_f32"), rms_norm_adjoint_f32);
    check_rms_norm_adjoint<float>(sized("rms_norm_adjoint_f32_bf16"), rms_norm_adjoint_f32_bf16);
    check_rms_norm_adjoint<double>(sized("rms_norm_adjoint_f64"), rms_norm_adjoint_f64);
    const auto gated = [&](const char* kernel) {
      Case c = sized(kernel);
      c.layout = Layout(dice.below(LAYOUTS));
      return c;
    };
    check_silu_gate<float>(gated("silu_gate_f32"), silu_gate_f32, silu_gate_adjoint_f32);
    check_silu_gate<double>(gated("silu_gate_f64"), silu_gate_f64, silu_gate_adjoint_f64);
    check_silu_gate<bf16>(gated("silu_gate_bf16"), silu_gate_bf16, silu_gate_adjoint_bf16);
    check_silu_gate<f16>(gated("silu_gate_f16"), silu_gate_f16, silu_gate_adjoint_f16);
  }
}

#define SCAN_STEPS(E, type)                                                                                    \
  check_scan<E>(Case::random("scan_" #type "_step", 1 + int(dice.below(3)), tokens, channels), scan_##type##_step)
#define GATE_STEPS(E, Kind, name, type)                                                                        \
  check_gate_loop<E, Kind>(Case::random(#name "_" #type "_step", 1 + int(dice.below(3)), tokens, channels),    \
                           name##_##type##_step, name##_adjoint_##type)

// Up to as many tokens as a thread takes.
static void steps() {
  for (int tokens = 1; tokens <= STEP_TOKENS; tokens++) {
    for (int channels : {1, 31, 128, 130, 300}) {
      if (count_of_steps++ % one_of != 0) continue;
      SCAN_STEPS(float, f32), SCAN_STEPS(double, f64), SCAN_STEPS(bf16, bf16), SCAN_STEPS(f16, f16);
      SCAN_STEPS(Complex<float>, c64), SCAN_STEPS(Complex<double>, c128);
      GATE_STEPS(float, MaxHeads, gate_loop, f32), GATE_STEPS(double, MaxHeads, gate_loop, f64);
      GATE_STEPS(bf16, MaxHeads, gate_loop, bf16), GATE_STEPS(f16, MaxHeads, gate_loop, f16);
      GATE_STEPS(float, Simple, simple_gate_loop, f32), GATE_STEPS(double, Simple, simple_gate_loop, f64);
      GATE_STEPS(bf16, Simple, simple_gate_loop, bf16), GATE_STEPS(f16, Simple, simple_gate_loop, f16);
    }
  }
}

static void all_kernels() {
  steps();
  heads();
  rows();
  other_tiles();
  SCANS(float, f32);
  SCANS(double, f64);
  SCANS(Complex<float>, c64);
  SCANS(Complex<double>, c128);
  SCANS(bf16, bf16);
  SCANS(f16, f16);
  GATES(float, MaxHeads, gate_loop, f32);
  GATES(double, MaxHeads, gate_loop, f64);
  GATES(bf16, MaxHeads, gate_loop, bf16);
  GATES(f16, MaxHeads, gate_loop, f16);
  GATES(float, Simple, simple_gate_loop, f32);
  GATES(double, Simple, simple_gate_loop, f64);
  GATES(bf16, Simple, simple_gate_loop, bf16);
  GATES(f16, Simple, simple_gate_loop, f16);
}

static void tiny_tiles(int seqlen, int channels, u32 most_blocks) {
  const auto sized = [&](const char* kernel, int rows) {
    Case c = Case::random(kernel, 1 + int(dice.below(2)), rows, channels);
    c.most_blocks = most_blocks;
    return c;
  };
  check_scan<float>(sized("tiny_scan_f32", seqlen), tiny_scan_f32);
  check_scan<Complex<double>>(sized("tiny_scan_c128", seqlen), tiny_scan_c128);
  check_scan<bf16>(sized("tiny_scan_bf16", seqlen), tiny_scan_bf16);
  check_scan_adjoint<float>(sized("tiny_scan_adjoint_f32", seqlen), tiny_scan_adjoint_f32);
  check_gate_loop<float, MaxHeads>(sized("tiny_gate_loop_f32", seqlen), tiny_gate_loop_f32, nullptr);
  check_gate_loop_adjoint<float, Simple>(sized("tiny_simple_gate_loop_adjoint_f32", seqlen),
                                         tiny_simple_gate_loop_adjoint_f32);
}

// So many blocks that 32 groups of tiles are under way together. The youngest go first, so that the maps
// of all groups are there before the first state is.
static void far_look_back() {
  for (int run = 0; run < 4; run++) {
    Case c = Case::random("tiny_scan_f32", 1, 40 * GROUP, 20);
    c.a_tile_a_block = true;
    host::Options options = random_options(1);
    options.resident = u32(c.seqlen);
    options.order = host::FORWARD;
    options.schedule = run % 2 ? host::LIFO : host::STARVE_OLD;
    check_scan<float>(c, tiny_scan_f32, nullptr, &options);
  }
}

// Forty schedules, one answer to the bit.
static void determinism() {
  std::vector<unsigned char> first, bits;
  for (int run = 0; run < 40; run++) {
    const host::Random before = dice;
    dice = host::Random(77); // the same numbers each time
    Case c = Case::random("tiny_scan_f32", 1, 400, 40);
    c.layout = ALIGNED, c.decays = NEAR_ONE, c.segments = NO_STARTS, c.nan = c.in_place = false;
    c.most_blocks = 60;
    host::Options options = random_options(60);
    options.resident = 1 + u32(run) * 3 / 2;
    options.order = host::Order(run % 3), options.schedule = host::Schedule(run / 3 % 4);
    options.seed = 1000 + u64(run);
    check_scan<float>(c, tiny_scan_f32, &bits, &options);
    dice = before;
    dice.next();
    if (run == 0) first = bits;
    if (bits != first) fail(c, "schedule %d changes bits", run);
  }
}

// The tags of 2^29 launches are used up: the workspace is cleared, once.
static void epochs_wrap() {
  workspace.control.epoch = EPOCHS - 3;
  for (int run = 0; run < 40; run++) {
    Case c = Case::random("tiny_scan_f32", 1, 1 + int(dice.below(200)), 1 + int(dice.below(70)));
    c.most_blocks = 20;
    check_scan<float>(c, tiny_scan_f32);
  }
  if (workspace.control.epoch != 38) {
    printf("FAILURE: the epoch is %u after the wrap\n", workspace.control.epoch);
    tally.failures++;
  }
}

static void print_distances() {
  for (int level = 0; level < 2; level++) {
    printf("look-back over %s:", level ? "groups" : "tiles");
    const int most = level ? 32 : GROUP - 1; // a tile's search ends within its group
    for (int i = 1; i <= most; i++) {
      printf(" %llu", host::distances[level][i]);
      if (host::distances[level][i] == 0) {
        printf("\nFAILURE: distance %d never occurred", i);
        tally.failures++;
      }
    }
    puts("");
  }
}

// What kernels/needs.txt has.
static void print_needs() {
  for (const auto& [kernel, needs] : needed) {
    printf("needs %s %d %d %d %d\n", kernel.c_str(), needs.shared_bytes, needs.threads, needs.positions, needs.channels);
  }
}

static int usage() {
  printf("suite [all | grid | look_back [SEED]] | [mutant NAME]; mutants:");
  for (int m = 1; m < host::MUTANTS; m++) printf(" %s", host::MUTANT_NAMES[m]);
  puts("");
  return 2;
}

int main(int count, char** arguments) {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  const auto done = [&](const char* part) {
    printf("%-14s %6llu cases so far, %.1f s\n", part, tally.cases, seconds());
    fflush(stdout);
  };
  const std::string what = count > 1 ? arguments[1] : "all";
  const bool is_all = what == "all";
  if (what == "mutant") {
    for (int m = 1; count > 2 && m < host::MUTANTS; m++) {
      if (!strcmp(arguments[2], host::MUTANT_NAMES[m])) host::mutant = host::Mutant(m);
    }
    if (host::mutant == host::NONE) return usage();
    for (int run = 0; run < 20; run++) tiny_tiles(100, 36, 40);
    one_of = 7;
    all_kernels();
  } else if (!is_all && what != "grid" && what != "look_back") {
    return usage();
  }
  if (count > 2 && host::mutant == host::NONE) dice = host::Random(u64(atoll(arguments[2])));
  if (is_all || what == "grid") {
    all_kernels(), done("grid");
    print_needs();
  }
  if (is_all || what == "look_back") {
    for (int seqlen : {1, 31, 65, 300})
      for (int channels : {1, 36, 72}) tiny_tiles(seqlen, channels, 90);
    tiny_tiles(1025, 1, 90);
    done("tiny tiles");
    far_look_back(), done("far look-back");
    determinism(), done("determinism");
    epochs_wrap(), done("epochs");
    print_distances();
  }
  printf("%llu cases, %llu launches, %llu numbers, %llu failures, %llu deadlocks, worst error %.2f of the allowed, "
         "%.0f M switches, %.1f s\n",
         tally.cases, tally.launches, tally.numbers, tally.failures, tally.deadlocks, tally.worst,
         double(host::machine.switches) / 1e6, seconds());
  return tally.failures ? host::FAULT : 0;
}
