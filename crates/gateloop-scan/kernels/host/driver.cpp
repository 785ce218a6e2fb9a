// A stand-in for NVIDIA's driver: the part of libcuda.so that this project calls, over the machine of this folder.
//
// With it the code that launches kernels runs on a computer without a GPU, to its last step. It is built by tests and
// found by them alone (tests/common/stand_in.rs). What it promises is what the manual of the driver does and no more: work
// is done as late as its stream allows, memory is poisoned when it is given out and when it is given back, and a launch
// that a GPU would not survive ends the process with a word about it.
//
// GATELOOP_STAND_IN has settings, `key=value` with commas between: `devices`, `version`, `capability` (90 for 9.0),
// `memory` (bytes of all devices) and `any_memory=1`, for kernels that work in a tensor library's memory on the CPU; then
// work is also done at once, as that library does its own.
#include "driver_kernels.h"
#include "driver_memory.h"
#include <chrono>
#include <deque>
#include <mutex>
#include <sstream>

namespace driver {

// cuda.h names them with CUDA_ in front.
enum Result {
  SUCCESS = 0, ERROR_INVALID_VALUE = 1, ERROR_OUT_OF_MEMORY = 2, ERROR_NOT_INITIALIZED = 3, ERROR_NO_DEVICE = 100,
  ERROR_INVALID_DEVICE = 101, ERROR_INVALID_IMAGE = 200, ERROR_INVALID_CONTEXT = 201, ERROR_INVALID_HANDLE = 400,
  ERROR_NOT_FOUND = 500
};

enum Attribute {
  MULTIPROCESSOR_COUNT = 16, MAX_THREADS_PER_MULTIPROCESSOR = 39, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76,
  MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97, MEMORY_POOLS_SUPPORTED = 115
};

// What a launch may have of dynamic shared memory without asking for more.
constexpr u32 ORDINARY_SHARED = 48 << 10;

static i64 setting(const std::string& key, i64 otherwise) {
  const char* text = getenv("GATELOOP_STAND_IN");
  std::istringstream all(text ? text : "");
  for (std::string one; std::getline(all, one, ',');) {
    const size_t equals = one.find('=');
    if (one.substr(0, equals) == key && equals != std::string::npos) return atoll(one.c_str() + equals + 1);
  }
  return otherwise;
}

struct Context;
struct Stream {
  Context* context = nullptr;
  std::deque<std::function<void()>> work;
  // Does all that was asked of it.
  void finish() {
    while (!work.empty()) {
      const auto next = std::move(work.front());
      work.pop_front();
      next();
    }
  }
};

struct Device {
  const char* name;
  i64 multiprocessors, shared_per_block, shared_per_multiprocessor, threads, capability;
  bool has_pools;
};
// The limits of an H100, and those of a desktop's card, whose kernels have smaller tiles.
static const Device DEVICES[] = {
    {"stand-in for an H100", 132, 227 << 10, 228 << 10, 2048, 90, true},
    {"stand-in for an RTX 3090", 82, 99 << 10, 100 << 10, 1536, 86, false},
};

struct Context {
  const Device* device;
  Memory memory;
  Stream unnamed; // what a null handle stands for
  std::vector<std::unique_ptr<Stream>> streams;
};
struct Module {
  Context* context;
  std::string ptx;
};
struct Event {
  Stream* stream = nullptr;
  std::chrono::steady_clock::time_point at;
};
struct Function {
  Context* context;
  std::string name;
  const Entry* entry;
  u32 most_threads, most_shared = ORDINARY_SHARED;
};

static std::recursive_mutex mutex; // one call at a time
static bool is_initialised = false;
static Context contexts[sizeof DEVICES / sizeof DEVICES[0]];
static thread_local Context* bound = nullptr;
static host::Random random(2024);

static int device_count() { return int(setting("devices", sizeof DEVICES / sizeof DEVICES[0])); }

// The number behind `key` in the text after `from`, or -1.
static i64 number_behind(const std::string& text, size_t from, const std::string& key) {
  const size_t at = text.find(key, from);
  return at == std::string::npos ? -1 : atoll(text.c_str() + at + key.size());
}

static void launch(const Function& function, const LaunchSize& size, const Arguments& arguments) {
  host::machine.options = {};
  host::Options& options = host::machine.options;
  options.resident = 1 + random.below(6);
  options.order = host::Order(random.below(3));
  options.schedule = host::Schedule(random.below(4));
  options.seed = random.next();
  host::any_memory = setting("any_memory", 0) != 0;
  host::buffers.clear();
  function.context->memory.show();
  const std::string problem = function.entry->run(function.name.c_str(), size, arguments);
  host::buffers.clear();
  host::machine.launch.kernel = function.name.c_str();
  if (!problem.empty()) host::fault(problem);
  function.context->memory.check_all();
}

// A stream's own handle, the null one included; null for one of another context or of none.
static Stream* stream_of(void* handle) {
  if (!bound) return nullptr;
  if (!handle) return &bound->unnamed;
  for (auto& stream : bound->streams) {
    if (stream.get() == handle) return stream.get();
  }
  return nullptr;
}

static void enqueue(Stream& stream, std::function<void()> work) {
  stream.work.push_back(std::move(work));
  if (setting("any_memory", 0)) stream.finish();
}

static void finish_all(Context& context) {
  context.unnamed.finish();
  for (auto& stream : context.streams) stream->finish();
}

static Result allocate(u64* at, size_t bytes) {
  if (!bound) return ERROR_INVALID_CONTEXT;
  if (bytes == 0) return ERROR_INVALID_VALUE;
  unsigned char* memory = bound->memory.allocate(bytes);
  if (!memory) return ERROR_OUT_OF_MEMORY;
  *at = u64(memory);
  return SUCCESS;
}

} // namespace driver

using namespace driver;
using Lock = std::lock_guard<std::recursive_mutex>;

extern "C" {

Result cuInit(u32) {
  Lock lock(mutex);
  if (device_count() == 0) return ERROR_NO_DEVICE;
  for (int i = 0; i < device_count(); i++) {
    contexts[i].device = &DEVICES[i];
    contexts[i].unnamed.context = &contexts[i];
    contexts[i].memory.most = size_t(setting("memory", i64(8) << 30));
  }
  is_initialised = true;
  return SUCCESS;
}
Result cuDriverGetVersion(int* version) {
  *version = int(setting("version", 12040));
  return SUCCESS;
}
Result cuDeviceGetCount(int* count) {
  if (!is_initialised) return ERROR_NOT_INITIALIZED;
  *count = device_count();
  return SUCCESS;
}
Result cuDeviceGet(int* device, int ordinal) {
  if (!is_initialised) return ERROR_NOT_INITIALIZED;
  if (ordinal < 0 || ordinal >= device_count()) return ERROR_INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}
Result cuDeviceGetName(char* name, int room, int device) {
  snprintf(name, size_t(room), "%s", DEVICES[device].name);
  return SUCCESS;
}
Result cuDeviceGetAttribute(int* value, Attribute attribute, int ordinal) {
  const Device& device = DEVICES[ordinal];
  const i64 capability = setting("capability", device.capability);
  switch (attribute) {
    case MULTIPROCESSOR_COUNT: *value = int(device.multiprocessors); return SUCCESS;
    case MAX_THREADS_PER_MULTIPROCESSOR: *value = int(device.threads); return SUCCESS;
    case CAPABILITY_MAJOR: *value = int(capability / 10); return SUCCESS;
    case CAPABILITY_MINOR: *value = int(capability % 10); return SUCCESS;
    case MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = int(device.shared_per_multiprocessor); return SUCCESS;
    case MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = int(device.shared_per_block); return SUCCESS;
    case MEMORY_POOLS_SUPPORTED: *value = device.has_pools; return SUCCESS;
  }
  return ERROR_INVALID_VALUE;
}

Result cuDevicePrimaryCtxRetain(Context** context, int device) {
  *context = &contexts[device];
  return SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxGetCurrent(Context** context) {
  *context = bound;
  return SUCCESS;
}
Result cuCtxSetCurrent(Context* context) {
  bound = context;
  return SUCCESS;
}
Result cuCtxSynchronize() {
  Lock lock(mutex);
  if (!bound) return ERROR_INVALID_CONTEXT;
  finish_all(*bound);
  return SUCCESS;
}

Result cuStreamCreate(Stream** stream, u32) {
  Lock lock(mutex);
  if (!bound) return ERROR_INVALID_CONTEXT;
  bound->streams.push_back(std::make_unique<Stream>());
  *stream = bound->streams.back().get();
  (*stream)->context = bound;
  return SUCCESS;
}
Result cuStreamSynchronize(void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream) return ERROR_INVALID_HANDLE;
  stream->finish();
  return SUCCESS;
}
Result cuStreamDestroy_v2(void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream || !handle) return ERROR_INVALID_HANDLE;
  stream->finish();
  auto& all = stream->context->streams;
  for (size_t i = 0; i < all.size(); i++) {
    if (all[i].get() == stream) return all.erase(all.begin() + i64(i)), SUCCESS;
  }
  return ERROR_INVALID_HANDLE;
}

Result cuMemAlloc_v2(u64* at, size_t bytes) {
  Lock lock(mutex);
  return allocate(at, bytes);
}
Result cuMemAllocAsync(u64* at, size_t bytes, void* handle) {
  Lock lock(mutex);
  return stream_of(handle) ? allocate(at, bytes) : ERROR_INVALID_HANDLE;
}
Result cuMemFree_v2(u64 at) {
  Lock lock(mutex);
  if (!bound) return ERROR_INVALID_CONTEXT;
  finish_all(*bound);
  return bound->memory.free(reinterpret_cast<unsigned char*>(at)) ? SUCCESS : ERROR_INVALID_VALUE;
}
Result cuMemFreeAsync(u64 at, void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream) return ERROR_INVALID_HANDLE;
  auto* memory = reinterpret_cast<unsigned char*>(at);
  if (!stream->context->memory.holds(memory, 1)) return ERROR_INVALID_VALUE;
  enqueue(*stream, [stream, memory] {
    if (!stream->context->memory.free(memory)) host::fault("memory is given back twice");
  });
  return SUCCESS;
}
Result cuMemsetD8Async(u64 at, unsigned char value, size_t bytes, void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  auto* memory = reinterpret_cast<unsigned char*>(at);
  if (!stream) return ERROR_INVALID_HANDLE;
  if (!stream->context->memory.holds(memory, bytes)) return ERROR_INVALID_VALUE;
  enqueue(*stream, [memory, value, bytes] { memset(memory, value, bytes); });
  return SUCCESS;
}
// Of memory that is not pinned, as a program's own: read before the call returns, written when the stream comes to it.
Result cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  auto* memory = reinterpret_cast<unsigned char*>(to);
  if (!stream) return ERROR_INVALID_HANDLE;
  if (!stream->context->memory.holds(memory, bytes)) return ERROR_INVALID_VALUE;
  auto* bytes_from = static_cast<const unsigned char*>(from);
  const auto copy = std::make_shared<std::vector<unsigned char>>(bytes_from, bytes_from + bytes);
  enqueue(*stream, [memory, copy] { memcpy(memory, copy->data(), copy->size()); });
  return SUCCESS;
}
// Whoever does not wait for the stream reads what was there before.
Result cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  const auto* memory = reinterpret_cast<const unsigned char*>(from);
  if (!stream) return ERROR_INVALID_HANDLE;
  if (!stream->context->memory.holds(memory, bytes)) return ERROR_INVALID_VALUE;
  enqueue(*stream, [to, memory, bytes] { memcpy(to, memory, bytes); });
  return SUCCESS;
}

Result cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  auto* target = reinterpret_cast<unsigned char*>(to);
  const auto* source = reinterpret_cast<const unsigned char*>(from);
  if (!stream) return ERROR_INVALID_HANDLE;
  const Memory& memory = stream->context->memory;
  if (!memory.holds(target, bytes) || !memory.holds(source, bytes)) return ERROR_INVALID_VALUE;
  enqueue(*stream, [target, source, bytes] { memcpy(target, source, bytes); });
  return SUCCESS;
}

Result cuEventCreate(Event** event, u32) {
  *event = new Event();
  return SUCCESS;
}
Result cuEventRecord(Event* event, void* handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream) return ERROR_INVALID_HANDLE;
  event->stream = stream;
  enqueue(*stream, [event] { event->at = std::chrono::steady_clock::now(); });
  return SUCCESS;
}
Result cuEventSynchronize(Event* event) {
  Lock lock(mutex);
  if (event->stream) event->stream->finish();
  return SUCCESS;
}
Result cuEventElapsedTime(float* ms, Event* start, Event* end) {
  *ms = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return SUCCESS;
}

Result cuModuleLoadData(Module** module, const void* image) {
  Lock lock(mutex);
  if (!bound) return ERROR_INVALID_CONTEXT;
  const std::string ptx = static_cast<const char*>(image);
  if (ptx.find(".version") == std::string::npos) return ERROR_INVALID_IMAGE;
  *module = new Module{bound, ptx};
  return SUCCESS;
}
// The kernel has to be in the PTX, with arguments of the same size as those of the kernel that runs here.
Result cuModuleGetFunction(Function** function, Module* module, const char* name) {
  Lock lock(mutex);
  const size_t at = module->ptx.find(std::string(".entry ") + name + "(");
  const auto known = kernels().find(name);
  if (at == std::string::npos || known == kernels().end()) return ERROR_NOT_FOUND;
  const Entry& entry = known->second;
  host::machine.launch.kernel = name;
  for (size_t i = 0; i <= entry.sizes.size(); i++) {
    const i64 expected = i < entry.sizes.size() ? i64(entry.sizes[i]) : -1;
    const i64 found = number_behind(module->ptx, at, std::string(name) + "_param_" + std::to_string(i) + "[");
    if (found != expected) host::fault("its PTX takes an argument of " + std::to_string(found) + " bytes");
  }
  const i64 threads = number_behind(module->ptx, at, ".maxntid ");
  *function = new Function{module->context, name, &entry, threads < 0 ? 1024 : u32(threads)};
  return SUCCESS;
}
Result cuFuncSetAttribute(Function* function, int attribute, int value) {
  constexpr int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
  if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0) return ERROR_INVALID_VALUE;
  if (value > function->context->device->shared_per_block) return ERROR_INVALID_VALUE;
  function->most_shared = std::max(u32(value), ORDINARY_SHARED);
  return SUCCESS;
}
Result cuLaunchKernel(Function* function, u32 grid, u32 grid_y, u32 grid_z, u32 threads, u32 threads_y, u32 threads_z,
                      u32 shared_bytes, void* handle, void** given, void** extra) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream || function->context != bound) return ERROR_INVALID_HANDLE;
  if (grid == 0 || threads == 0 || threads > function->most_threads) return ERROR_INVALID_VALUE;
  if (grid_y * grid_z * threads_y * threads_z != 1 || extra) return ERROR_INVALID_VALUE;
  if (shared_bytes > function->most_shared) return ERROR_INVALID_VALUE;
  Arguments arguments;
  for (size_t i = 0; i < function->entry->sizes.size(); i++) {
    const auto* bytes = static_cast<const unsigned char*>(given[i]);
    arguments.emplace_back(bytes, bytes + function->entry->sizes[i]);
  }
  const LaunchSize size = {grid, threads, shared_bytes};
  enqueue(*stream, [function, size, arguments] { launch(*function, size, arguments); });
  return SUCCESS;
}

// As long as the program does not ask what an error is called.
Result cuGetErrorName(Result, const char** name) {
  *name = "an error of the stand-in";
  return SUCCESS;
}
Result cuGetErrorString(Result error, const char** text) { return cuGetErrorName(error, text); }

} // extern "C"
