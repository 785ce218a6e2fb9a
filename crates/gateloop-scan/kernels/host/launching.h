// A kernel that looks back, as something that can be called: with its parameters and a workspace.
#pragma once
#include "../pass.cuh"

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
struct PlainCall {
  void (*kernel)(P);
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
