// What the CUDA side needs of libtorch beyond tch: opening the CUDA library at run time, so that one
// binary serves machines with and without it; the current stream; autocast to a dtype of choice.

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>

#include <dlfcn.h>

#include <string>

#include "guarded.h"

extern "C" {

// Opens libtorch_cuda.so beside the libtorch that is in use. Returns 1 if it is open now, 0 if this
// libtorch has none, -1 if it cannot be opened. To be called before anyone asks whether CUDA is there:
// libtorch keeps the first answer.
int gateloop_cuda_open(std::string* error) {
  return guarded(error, [&] {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&at::globalContext), &info) == 0) {
      *error = "libtorch does not say where it lies";
      return -1;
    }
    std::string path = info.dli_fname;
    path = path.substr(0, path.rfind('/') + 1) + "libtorch_cuda.so";
    // Global, for its static initialisers register the CUDA backend with the rest of libtorch.
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr) {
      return 1;
    }
    const char* reason = dlerror();
    const std::string text = reason == nullptr ? "" : reason;
    if (text.find("cannot open shared object file") != std::string::npos &&
        text.find(path) != std::string::npos) {
      return 0;
    }
    *error = text;
    return -1;
  });
}

// torch's current stream on a device, as a cudaStream_t.
int gateloop_cuda_stream(int device, void** stream, std::string* error) {
  return guarded(error, [&] {
    using Current = int (*)(int, void**);
    static const auto current =
        reinterpret_cast<Current>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
    if (current == nullptr) {
      *error = "libtorch_cuda is not loaded";
      return -1;
    }
    if (current(device, stream) != 0) {
      *error = "libtorch does not tell its current stream";
      return -1;
    }
    return 0;
  });
}

// Sets whether autocast to bfloat16 is on in this thread, and returns whether it was.
int gateloop_autocast(int enabled) {
  const bool was = at::autocast::is_autocast_enabled(at::kCUDA);
  for (const auto device : {at::kCUDA, at::kCPU}) {
    if (enabled != 0) {
      at::autocast::set_autocast_dtype(device, at::kBFloat16);
    }
    at::autocast::set_autocast_enabled(device, enabled != 0);
  }
  return was ? 1 : 0;
}

// Begins and ends a region: when the outermost one ends, the copies of the parameters in the lower
// precision are dropped, since the parameters may change.
void gateloop_autocast_enter() { at::autocast::increment_nesting(); }
void gateloop_autocast_leave() {
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
}

}  // extern "C"
