#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

struct GateloopStore {
  c10::intrusive_ptr<c10d::Store> inner;
};
