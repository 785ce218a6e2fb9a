// A kernel that looks back, as something that can be called: with its parameters and a workspace.
#pragma once
#include "../step.cuh"

template <class P>
using Kernel = void (*)(P, Workspace);

template <class P>
struct Call {
  Kernel<P> kernel;
  P params;
  Workspace work;
  static void run(const void* call) {
    auto* self = static_cast<const Call*>(call);
    self->kernel(self->params, self->work);
  }
};

// The same for one that needs no workspace.
template <class P>
using PlainKernel = void (*)(P);

template <class P>
struct PlainCall {
  PlainKernel<P> kernel;
  P params;
  static void run(const void* call) {
    auto* self = static_cast<const PlainCall*>(call);
    self->kernel(self->params);
  }
};

template <class P>
host::Needs needs_of(Kernel<P> kernel) {
  host::machine.probing = true;
  try {
    kernel(P(), Workspace());
  } catch (const host::Needs& needs) {
    host::machine.probing = false;
    return needs;
  }
  abort();
}
// Of the kernels of a few tokens, whose blocks have the channels of a row side by side.
template <class P>
host::Needs needs_of(PlainKernel<P>) {
  host::Needs needs = {};
  needs.threads = needs.channels = STEP_THREADS, needs.positions = STEP_TOKENS, needs.stages = 1;
  return needs;
}
