// Gated outputs and their adjoint against plain loops in double.
#pragma once
#include "flat.h"
#include "../silu_gate.cu"

// `c.seqlen` rows of `c.channels`; the gates lie between other numbers.
template <class E>
void check_silu_gate(const Case& c, void (*forward)(SiluGateParams<E>), void (*adjoint)(SiluGateAdjointParams<E>)) {
  tally.cases += 2;
  const int rows = c.seqlen, width = c.channels;
  const u32 grid = u32(rows + ROW_WARPS - 1) / ROW_WARPS;
  const auto plain = [&] { return Array<E>(1, rows, width); };
  Array<E> y = plain(), gated = plain(), dgated = plain(), dy = plain();
  Array<E> gates(1, rows, width, c.layout), dgates(1, rows, width, c.layout);
  y.fill(gauss_pair), dgated.fill(gauss_pair);
  gates.fill([&] { return 6. * gauss_pair(); });
  const u32 aligned = y.is_aligned() && gates.is_aligned() && width * sizeof(E) % 16 == 0;
  const SiluGateParams<E> params = {y.input().at, gates.input().at, gated.output().at, gates.row, rows, u32(width), aligned};
  if (!launch_plain(c, forward, params, 0, grid)) return;
  const SiluGateAdjointParams<E> back = {y.input().at,   gates.input().at,   dgated.input().at, dy.output().at,
                                         dgates.output().at, gates.row, dgates.row, rows, u32(width), aligned};
  if (!launch_plain(c, adjoint, back, 0, grid)) return;
  for (Array<E>* array : {&gated, &dy, &dgates}) {
    if (!array->is_clean_outside()) fail(c, "wrote outside");
  }
  for (int row = 0; row < rows; row++) {
    for (int i = 0; i < width; i++) {
      const double value = y.get(0, row, i).real(), g = gates.get(0, row, i).real(), d = dgated.get(0, row, i).real();
      const double open = 1 / (1 + exp(-g)), shut = 1 / (1 + exp(g));
      const Where at = {0, row, i};
      const double bound = Number<E>::bound, unit = Number<E>::unit;
      const double gradient = d * value * open * (1 + g * shut);
      // 1 - sigmoid(g) loses bits as it nears 0.
      const double size = fabs(d * value * open) * (1 + fabs(g) * (shut + 0.05));
      if (!matches(c, "gated", at, gated.get(0, row, i), value * g * open, bound * fabs(value * g * open), unit)) return;
      if (!matches(c, "dy", at, dy.get(0, row, i), d * g * open, bound * fabs(d * g * open), unit)) return;
      if (!matches(c, "dgates", at, dgates.get(0, row, i), gradient, bound * size, unit)) return;
    }
  }
}
