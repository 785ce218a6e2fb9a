// The bridge from torch::autograd::Function to Rust.
//
// libtorch keeps a custom gradient in a C++ template; tch has no binding for it. This file is the
// one instance of that template: it hands tensors to Rust callbacks and Rust's results back.
//
// Contract with src/autograd/ffi.rs: no C++ exception and no Rust panic crosses the boundary; every
// failure travels as a message. Tensor pointers handed to Rust are borrowed for the call; tensors
// that Rust hands over are copied (a reference count), so each side frees what it allocated.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

extern "C" {

// Every callback returns 0, or another number after it has written `error`.
struct GateloopVTable {
  int (*forward)(const void* function, const Tensor* const* inputs, size_t n_inputs,
                 variable_list* outputs, variable_list* saved, std::string* error);
  int (*backward)(const void* function, const Tensor* const* saved, size_t n_saved,
                  const Tensor* const* grad_outputs, size_t n_grad_outputs,
                  const uint8_t* needs_grad, size_t n_inputs, variable_list* grad_inputs,
                  std::string* error);
  void (*drop)(void* function);
};

void gateloop_list_push(variable_list* list, const Tensor* tensor) {
  list->push_back(tensor == nullptr ? Tensor() : *tensor);
}

void gateloop_error_set(std::string* error, const char* message, size_t len) {
  error->assign(message, len);
}

}  // extern "C"

namespace {

// Owns the boxed Rust object for as long as the graph node lives.
struct RustFunction : torch::CustomClassHolder {
  void* object;
  const GateloopVTable* vtable;
  size_t n_inputs;

  RustFunction(void* object_, const GateloopVTable* vtable_, size_t n_inputs_)
      : object(object_), vtable(vtable_), n_inputs(n_inputs_) {}
  ~RustFunction() override { vtable->drop(object); }
};

using RustFunctionPtr = c10::intrusive_ptr<RustFunction>;

// An undefined tensor (no gradient arrived) is a null pointer on the Rust side.
std::vector<const Tensor*> borrow(const variable_list& tensors) {
  std::vector<const Tensor*> pointers;
  pointers.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    pointers.push_back(tensor.defined() ? &tensor : nullptr);
  }
  return pointers;
}

struct Bridge : torch::autograd::Function<Bridge> {
  // `inputs` must be declared at::TensorList: a std::vector<Tensor> is taken for a non-variable
  // argument and the gradient would be lost without a word.
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, RustFunctionPtr function) {
    const variable_list held = inputs.vec();
    variable_list outputs, saved;
    std::string error;
    const auto pointers = borrow(held);
    if (function->vtable->forward(function->object, pointers.data(), pointers.size(), &outputs,
                                  &saved, &error) != 0) {
      throw std::runtime_error(error);
    }
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["function"] = c10::IValue::make_capsule(std::move(function));
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grad_outputs) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "this operation has no second derivative: call backward without create_graph");
    const auto holder = ctx->saved_data["function"].toCapsule();
    const auto* function = static_cast<const RustFunction*>(holder.get());
    const auto saved = ctx->get_saved_variables();
    std::vector<uint8_t> needs_grad(function->n_inputs);
    for (size_t i = 0; i < needs_grad.size(); ++i) {
      needs_grad[i] = ctx->needs_input_grad(i) ? 1 : 0;
    }
    variable_list grad_inputs;
    std::string error;
    const auto saved_pointers = borrow(saved);
    const auto grad_pointers = borrow(grad_outputs);
    if (function->vtable->backward(function->object, saved_pointers.data(), saved_pointers.size(),
                                   grad_pointers.data(), grad_pointers.size(), needs_grad.data(),
                                   needs_grad.size(), &grad_inputs, &error) != 0) {
      throw std::runtime_error(error);
    }
    grad_inputs.emplace_back();  // the gradient of the `function` argument: none
    return grad_inputs;
  }
};

}  // namespace

extern "C" {

// Applies `object` to the inputs; takes ownership of `object` whatever happens. On success the
// results are in `outputs`, an array of `capacity` pointers that the caller owns, and their number
// is returned; on failure the result is -1 and `error` holds the message.
int64_t gateloop_apply(void* object, const GateloopVTable* vtable, const Tensor* const* inputs,
                       size_t n_inputs, Tensor** outputs, size_t capacity, std::string* error) {
  try {
    auto function = c10::make_intrusive<RustFunction>(object, vtable, n_inputs);
    variable_list held;
    held.reserve(n_inputs);
    for (size_t i = 0; i < n_inputs; ++i) {
      held.push_back(*inputs[i]);
    }
    const auto results = Bridge::apply(at::TensorList(held), std::move(function));
    if (results.size() > capacity) {
      throw std::runtime_error("the function returned more outputs than it declared");
    }
    for (size_t i = 0; i < results.size(); ++i) {
      outputs[i] = new Tensor(results[i]);
    }
    return static_cast<int64_t>(results.size());
  } catch (const c10::Error& e) {
    *error = e.what_without_backtrace();
  } catch (const std::exception& e) {
    *error = e.what();
  } catch (...) {
    *error = "unknown C++ exception";
  }
  return -1;
}

std::string* gateloop_error_new() { return new std::string(); }
const char* gateloop_error_data(const std::string* error, size_t* len) {
  *len = error->size();
  return error->data();
}
void gateloop_error_free(std::string* error) { delete error; }

}  // extern "C"
