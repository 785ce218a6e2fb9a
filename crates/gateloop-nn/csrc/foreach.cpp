// Operations on lists of tensors that libtorch has and tch does not bind: one call for all
// parameters instead of several for each.

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "guarded.h"

using at::Tensor;

namespace {

std::vector<Tensor> list(const Tensor* const* tensors, size_t n) {
  std::vector<Tensor> held;
  held.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    held.push_back(*tensors[i]);
  }
  return held;
}

std::optional<Tensor> optional(const Tensor* tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<Tensor>(*tensor);
}

// Runs `body` without recording gradients.
template <typename Body>
int without_grad(std::string* error, Body body) {
  return guarded(error, [&] {
    const at::NoGradGuard no_grad;
    body();
    return 0;
  });
}

}  // namespace

extern "C" {

struct GateloopAdamW {
  double lr, beta1, beta2, eps, weight_decay;
};

// One AdamW update of every parameter, in place; `steps` are scalar tensors, one a parameter. Gradients are
// divided by `grad_scale`, and nothing is updated where `found_inf` is 1, unless they are null.
int gateloop_fused_adamw(const Tensor* const* params, const Tensor* const* grads,
                         const Tensor* const* exp_avgs, const Tensor* const* exp_avg_sqs,
                         const Tensor* const* steps, size_t n, const GateloopAdamW* options,
                         const Tensor* grad_scale, const Tensor* found_inf, std::string* error) {
  return without_grad(error, [&] {
    auto p = list(params, n), m = list(exp_avgs, n), v = list(exp_avg_sqs, n);
    auto step = list(steps, n);
    if (found_inf == nullptr) {
      at::_foreach_add_(step, 1);
    } else {
      // libtorch's update reads the counts and never writes them, also where it does nothing.
      at::_foreach_add_(step, at::rsub(*found_inf, 1));
    }
    at::_fused_adamw_(p, list(grads, n), m, v, /*max_exp_avg_sqs=*/{}, step, options->lr,
                      options->beta1, options->beta2, options->weight_decay, options->eps,
                      /*amsgrad=*/false, /*maximize=*/false, optional(grad_scale),
                      optional(found_inf));
  });
}

// The Euclidean norm over all elements of all tensors, as a scalar tensor.
int gateloop_total_norm(const Tensor* const* tensors, size_t n, Tensor** norm, std::string* error) {
  return without_grad(error, [&] {
    *norm = new Tensor(at::linalg_vector_norm(at::stack(at::_foreach_norm(list(tensors, n), 2)), 2));
  });
}

// Gives back the gradients: the next backward pass hands its own over instead of adding to zeros.
int gateloop_clear_grads(const Tensor* const* tensors, size_t n, std::string* error) {
  return without_grad(error, [&] {
    auto held = list(tensors, n);
    for (Tensor& tensor : held) {
      tensor.mutable_grad().reset();
    }
  });
}

// Makes `grads` the gradients of `tensors`, without a copy.
int gateloop_set_grads(const Tensor* const* tensors, const Tensor* const* grads, size_t n,
                       std::string* error) {
  return without_grad(error, [&] {
    auto held = list(tensors, n);
    for (size_t i = 0; i < n; ++i) {
      held[i].mutable_grad() = *grads[i];
    }
  });
}

// Multiplies every tensor by a number, in place.
int gateloop_foreach_mul(const Tensor* const* tensors, size_t n, double factor, std::string* error) {
  return without_grad(error, [&] { at::_foreach_mul_(list(tensors, n), factor); });
}

// Moves every tensor by a share `weight` of the way to its target, in place.
int gateloop_foreach_lerp(const Tensor* const* tensors, const Tensor* const* targets, size_t n,
                          double weight, std::string* error) {
  return without_grad(error,
                      [&] { at::_foreach_lerp_(list(tensors, n), list(targets, n), weight); });
}

}  // extern "C"
