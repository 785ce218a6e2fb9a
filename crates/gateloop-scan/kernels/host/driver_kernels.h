// The kernels by name, with arguments as a driver gets them: addresses of what is to be handed over by value.
#pragma once
#include "launching.h"
#include "../scan.cu"
#include "../scan_adjoint.cu"
#include "../gate_loop.cu"
#include "../gate_loop_adjoint.cu"
#include "../simple_gate_loop.cu"
#include "../simple_gate_loop_adjoint.cu"
#include "../scan_step.cu"
#include "../gate_loop_step.cu"
#include "../heads_weigh.cu"
#include "../heads_weigh_adjoint.cu"
#include "../heads_turn.cu"
#include "../rms_norm.cu"
#include "../rms_norm_adjoint.cu"
#include "../silu_gate.cu"
#include <functional>
#include <map>

namespace driver {

struct LaunchSize {
  u32 grid, threads, shared_bytes;
};

// As a launch leaves them: copies, so that the caller may reuse his.
using Arguments = std::vector<std::vector<unsigned char>>;

struct Entry {
  std::vector<size_t> sizes; // of the arguments, in bytes
  // Runs it to its end. What comes back says what is wrong with the launch or why it did not end, and is else empty.
  std::function<std::string(const char* name, const LaunchSize&, const Arguments&)> run;
};

template <class T>
T argument(const Arguments& arguments, size_t i) {
  T value;
  memcpy(static_cast<void*>(&value), arguments[i].data(), sizeof value);
  return value;
}

inline std::string told(const char* problem) { return problem ? problem : ""; }

template <class P>
Entry entry(Kernel<P> kernel) {
  const auto run = [kernel](const char* name, const LaunchSize& size, const Arguments& arguments) -> std::string {
    const host::Needs needs = needs_of(kernel);
    if (needs.shared_bytes != int(size.shared_bytes) || needs.threads != int(size.threads)) {
      return "it asks for " + std::to_string(needs.shared_bytes) + " bytes of shared memory and " +
             std::to_string(needs.threads) + " threads, and gets " + std::to_string(size.shared_bytes) + " and " +
             std::to_string(size.threads);
    }
    const Call<P> call = {kernel, argument<P>(arguments, 0), argument<Workspace>(arguments, 1)};
    host::machine.launch = {name, size.grid, needs, call.work.records, call.work.capacity, &call.work.control->ticket};
    return told(host::run_all(&Call<P>::run, &call));
  };
  return {{sizeof(P), sizeof(Workspace)}, run};
}

// Its shared memory is not the launch's to give.
template <class P>
Entry entry(PlainKernel<P> kernel) {
  const auto run = [kernel](const char* name, const LaunchSize& size, const Arguments& arguments) -> std::string {
    host::Needs needs = {};
    needs.shared_bytes = 48 << 10, needs.threads = int(size.threads);
    host::machine.launch = {name, size.grid, needs, nullptr, 0, nullptr};
    const PlainCall<P> call = {kernel, argument<P>(arguments, 0)};
    return told(host::run_all(&PlainCall<P>::run, &call));
  };
  return {{sizeof(P)}, run};
}

#define ONE(name) {#name, entry(name)},
#define REAL(name, tiles) ONE(name##_f32##tiles) ONE(name##_f64##tiles)
#define HALF(name, tiles) ONE(name##_bf16##tiles) ONE(name##_f16##tiles)
#define COMPLEX(name, tiles) ONE(name##_c64##tiles) ONE(name##_c128##tiles)
#define OPERATOR(name) REAL(name, ) REAL(name, _small) HALF(name, ) HALF(name, _small)
#define SCAN_OF(name)                                                                                \
  OPERATOR(name) COMPLEX(name, ) COMPLEX(name, _small) ONE(name##_f32_tall) ONE(name##_f32_short) \
  ONE(name##_c64_short)

inline const std::map<std::string, Entry>& kernels() {
  static const std::map<std::string, Entry> all = {
      SCAN_OF(scan) SCAN_OF(scan_adjoint)
      OPERATOR(gate_loop) OPERATOR(gate_loop_adjoint)
      OPERATOR(simple_gate_loop) OPERATOR(simple_gate_loop_adjoint)
      REAL(scan, _step) HALF(scan, _step) COMPLEX(scan, _step)
      REAL(gate_loop, _step) HALF(gate_loop, _step) REAL(simple_gate_loop, _step) HALF(simple_gate_loop, _step)
      REAL(rms_norm, ) ONE(rms_norm_f32_bf16) REAL(rms_norm_adjoint, ) ONE(rms_norm_adjoint_f32_bf16)
      REAL(silu_gate, ) HALF(silu_gate, ) REAL(silu_gate_adjoint, ) HALF(silu_gate_adjoint, )
      REAL(heads_weigh, ) REAL(heads_weigh_adjoint, ) REAL(heads_turn, ) REAL(heads_turn_adjoint, )
  };
  return all;
}

#undef SCAN_OF
#undef OPERATOR
#undef COMPLEX
#undef HALF
#undef REAL
#undef ONE

} // namespace driver
