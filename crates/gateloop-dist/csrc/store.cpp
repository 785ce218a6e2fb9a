// c10d's TCPStore: keys and values that all ranks see. The contract is in src/store.rs.

#include "guarded.h"
#include "store.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstdlib>

using Bytes = std::vector<uint8_t>;

namespace {

// c10d logs every connection that ends, with backtraces, and every error that it also throws. What matters is in the errors;
// whoever wants the rest sets the variable.
void quiet_unless_asked() {
  constexpr int kFatal = 3;
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
    FLAGS_caffe2_log_level = kFatal;
  }
}

Bytes bytes(const char* data, size_t len) { return Bytes(data, data + len); }

}  // namespace

extern "C" {

char* gateloop_store_new(const char* host, uint16_t port, bool is_server, int64_t timeout_ms,
                         GateloopStore** out) {
  return guarded([&] {
    quiet_unless_asked();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    // Who is there is told rank by rank, so that those that are not can be named.
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new GateloopStore{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

void gateloop_store_free(GateloopStore* store) {
  // A destructor that throws would end the program.
  free(guarded([&] { delete store; }));
}

char* gateloop_store_set(GateloopStore* store, const char* key, const char* data, size_t len) {
  return guarded([&] { store->inner->set(std::string(key), bytes(data, len)); });
}

// Writes the value if the key has none. `*was_set` says whether it had none.
char* gateloop_store_claim(GateloopStore* store, const char* key, const char* data, size_t len,
                           bool* was_set) {
  return guarded([&] {
    const auto mine = bytes(data, len);
    *was_set = store->inner->compareSet(std::string(key), Bytes(), mine) == mine;
  });
}

// Gives the value to `take`, if there is one, without waiting for it.
char* gateloop_store_get(GateloopStore* store, const char* key, void* place,
                         void (*take)(void* place, const uint8_t* data, size_t len)) {
  return guarded([&] {
    if (store->inner->check({key})) {
      const auto value = store->inner->get(std::string(key));
      take(place, value.data(), value.size());
    }
  });
}

}  // extern "C"
