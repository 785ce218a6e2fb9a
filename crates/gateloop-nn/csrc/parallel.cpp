// libtorch's own threads for work that is not libtorch's. A second pool beside them would have to wait
// for them: after an operation they spin for a while, each on its core.

#include <ATen/Parallel.h>

#include <dlfcn.h>

extern "C" {

int gateloop_threads() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

// Runs `body(data)` once on each of `threads` threads; returns 0 if libtorch is built without OpenMP.
// libtorch's headers would start such threads in code of the includer's, which then had to be compiled and
// linked with the same OpenMP library; so its entry is looked up where libtorch has loaded it.
int gateloop_on_threads(unsigned threads, void (*body)(void*), void* data) {
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (parallel == nullptr) {
    return 0;
  }
  parallel(body, data, threads, 0);
  return 1;
}

}  // extern "C"
