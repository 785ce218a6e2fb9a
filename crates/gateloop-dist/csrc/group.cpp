// The ranks' collective operations: c10d's Gloo and NCCL. The contract is in src/group.rs.

#include "guarded.h"
#include "store.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/cuda/nccl.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <cstdlib>

using at::Tensor;
using BackendPtr = c10::intrusive_ptr<c10d::Backend>;
using StorePtr = c10::intrusive_ptr<c10d::Store>;

struct GateloopGroup {
  BackendPtr backend;
};

// An operation that has been begun; it keeps its tensors.
struct GateloopWork {
  c10::intrusive_ptr<c10d::Work> inner;
};

namespace {

BackendPtr new_gloo(const StorePtr& store, int rank, int size, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  // PyTorch reads this variable in Python; it means the same here.
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  options->devices.push_back(interface != nullptr && *interface != '\0'
                                 ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                 : c10d::ProcessGroupGloo::createDefaultDevice());
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, std::move(options));
}

#ifdef USE_C10D_NCCL
// The options contain a structure of nccl.h's that grows from version to version. They are allocated here and filled by
// libtorch, which must know the same structure.
void check_nccl_version() {
  const auto version = torch::cuda::nccl::version();
  const auto major = version >> 32;
  const auto minor = (version >> 16) & 0xffff;
  TORCH_CHECK(major == NCCL_MAJOR && minor == NCCL_MINOR,
              "this program was built with the headers of NCCL ", NCCL_MAJOR, ".", NCCL_MINOR,
              ", but libtorch with those of ", major, ".", minor, ": build it with the latter");
}
#endif

BackendPtr new_nccl(const StorePtr& store, int rank, int size, std::chrono::milliseconds timeout,
                    int device) {
#ifdef USE_C10D_NCCL
  check_nccl_version();
  // Otherwise a thread of libtorch's ends the process when an operation fails, and no error gets here. Whoever sets the
  // variable knows better.
  setenv("TORCH_NCCL_BLOCKING_WAIT", "1", /*overwrite=*/0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto backend =
      c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, std::move(options));
  backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  return backend;
#else
  TORCH_CHECK(false, "this program was built without NCCL");
#endif
}

}  // namespace

extern "C" {

bool gateloop_has_nccl() {
#ifdef USE_C10D_NCCL
  return true;
#else
  return false;
#endif
}

char* gateloop_group_new(GateloopStore* store, const char* prefix, int rank, int size,
                         int64_t timeout_ms, bool is_nccl, int device, GateloopGroup** out) {
  return guarded([&] {
    const StorePtr own = c10::make_intrusive<c10d::PrefixStore>(prefix, store->inner);
    const auto timeout = std::chrono::milliseconds(timeout_ms);
    *out = new GateloopGroup{is_nccl ? new_nccl(own, rank, size, timeout, device)
                                     : new_gloo(own, rank, size, timeout)};
  });
}

void gateloop_group_free(GateloopGroup* group) {
  free(guarded([&] {
    // Without this NCCL's destructor aborts what its stream has yet to do, which may have been waited for: a wait is one
    // of the stream's. For Gloo it is nothing.
    group->backend->shutdown();
    delete group;
  }));
}

char* gateloop_group_all_reduce(GateloopGroup* group, Tensor* tensor, int operation,
                                GateloopWork** out) {
  return guarded([&] {
    std::vector<Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(operation);
    *out = new GateloopWork{group->backend->allreduce(tensors, options)};
  });
}

char* gateloop_group_broadcast(GateloopGroup* group, Tensor* tensor, int root, GateloopWork** out) {
  return guarded([&] {
    std::vector<Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *out = new GateloopWork{group->backend->broadcast(tensors, options)};
  });
}

char* gateloop_group_all_gather(GateloopGroup* group, Tensor* gathered, Tensor* tensor,
                                GateloopWork** out) {
  return guarded([&] { *out = new GateloopWork{group->backend->_allgather_base(*gathered, *tensor)}; });
}

char* gateloop_group_barrier(GateloopGroup* group, GateloopWork** out) {
  return guarded([&] { *out = new GateloopWork{group->backend->barrier()}; });
}

char* gateloop_work_wait(GateloopWork* work) {
  return guarded([&] { work->inner->wait(); });
}

void gateloop_work_free(GateloopWork* work) {
  free(guarded([&] { delete work; }));
}

// The numbers of c10d's reductions.
int gateloop_reduce_sum() { return static_cast<int>(c10d::ReduceOp::SUM); }
int gateloop_reduce_max() { return static_cast<int>(c10d::ReduceOp::MAX); }
int gateloop_reduce_min() { return static_cast<int>(c10d::ReduceOp::MIN); }

}  // extern "C"
