// The scan and its adjoint against plain loops in double.
#pragma once
#include "cases.h"
#include "../scan.cu"
#include "../scan_adjoint.cu"
#include "../scan_step.cu"

template <class E, class K>
void check_scan(const Case& c, K kernel, std::vector<unsigned char>* bits = nullptr,
                const host::Options* options = nullptr) {
  using S = Wide<E>;
  using N = Number<E>;
  tally.cases++;
  const host::Needs needs = needs_of(kernel);
  const auto make = [&] { return Array<E>(c.batch, c.seqlen, c.channels, c.layout, c.reversed); };
  Array<E> a = make(), b = make(), out = make();
  Cuts cuts(c);
  States<S> h0(c.batch, c.channels), last(c.batch, c.channels);
  a.fill([&] { return decay_of(c.decays, N::IS_COMPLEX); });
  b.fill([&] { return gauss_pair(); });
  h0.fill();
  if (c.nan) {
    // A NaN anywhere, and in the decays that nobody may use.
    b.at(int(dice.below(c.batch)), dice.below(c.seqlen), int(dice.below(c.channels))) = N::to(cd(NAN, NAN));
    for (int e = 0; e < c.batch; e++)
      for (int t = 0; t < c.seqlen; t++)
        if (cuts.at(e, t) || (t == 0 && !c.h0)) a.at(e, t, int(dice.below(c.channels))) = N::to(cd(NAN, NAN));
  }
  std::vector<cd> as, bs; // before `h` goes over them
  for (int e = 0; e < c.batch; e++)
    for (int ch = 0; ch < c.channels; ch++)
      for (int t = 0; t < c.seqlen; t++) as.push_back(a.get(e, t, ch)), bs.push_back(b.get(e, t, ch));
  States<S> initial = h0;
  const bool over_a = c.in_place && dice.one_in(2);
  Array<E>& h = c.in_place ? (over_a ? a : b) : out;
  // The last state may go where the first came from.
  States<S>& h_last = c.in_place && c.h0 ? h0 : last;
  ScanParams<E> params = {a.input(), b.input(), h.output(), c.h0 ? h0.data() : nullptr,
                          c.last ? h_last.data() : nullptr, cuts.starts,
                          shape_of(c, needs, a.is_aligned() && b.is_aligned() && h.is_aligned(), sizeof(E))};
  if (!launch(c, kernel, params, needs, options ? *options : random_options(c.most_blocks))) return;
  size_t at = 0;
  for (int e = 0; e < c.batch; e++) {
    for (int ch = 0; ch < c.channels; ch++) {
      cd state = c.h0 ? Number<S>::from(initial.at(e, ch)) : cd(0);
      double size = std::abs(state);
      for (int t = 0; t < c.seqlen; t++, at++) {
        const bool cut = cuts.at(e, t) || (t == 0 && !c.h0);
        state = cut ? bs[at] : product(as[at], state) + bs[at];
        size = cut ? std::abs(bs[at]) : std::abs(as[at]) * size + std::abs(bs[at]);
        if (!matches(c, "h", {e, t, ch}, h.get(e, t, ch), state, N::bound * size, N::unit)) return;
      }
      if (!c.last) continue;
      if (!matches(c, "h_last", {e, 0, ch}, Number<S>::from(h_last.at(e, ch)), state, N::bound * size, 0)) return;
    }
  }
  if (!h.is_clean_outside() || !h_last.is_clean_outside()) fail(c, "wrote outside");
  if (bits) *bits = h.memory;
}

template <class E>
void check_scan_adjoint(const Case& c, Kernel<ScanAdjointParams<E>> kernel) {
  using S = Wide<E>;
  using N = Number<E>;
  tally.cases++;
  const host::Needs needs = needs_of<ScanAdjointParams<E>>(kernel);
  const auto make = [&] { return Array<E>(c.batch, c.seqlen, c.channels, c.layout, c.reversed); };
  Array<E> a = make(), h = make(), dh = make(), da = make(), db = make();
  Cuts cuts(c);
  States<S> h0(c.batch, c.channels), dh_last(c.batch, c.channels), dh0(c.batch, c.channels);
  a.fill([&] { return decay_of(c.decays, N::IS_COMPLEX); });
  h.fill([&] { return gauss_pair(); });
  dh.fill([&] { return gauss_pair(); });
  h0.fill(), dh_last.fill();
  if (c.nan) {
    dh.at(int(dice.below(c.batch)), dice.below(c.seqlen), int(dice.below(c.channels))) = N::to(cd(NAN, NAN));
    for (int e = 0; e < c.batch; e++)
      for (int t = 0; t < c.seqlen; t++)
        if (cuts.at(e, t)) a.at(e, t, int(dice.below(c.channels))) = N::to(cd(NAN, NAN));
  }
  ScanAdjointParams<E> params = {a.input(), h.input(), dh.input(), da.output(), db.output(),
                                 c.h0 ? h0.data() : nullptr, c.last ? dh_last.data() : nullptr,
                                 c.h0 ? dh0.data() : nullptr, cuts.starts,
                                 shape_of(c, needs, a.is_aligned() && da.is_aligned(), sizeof(E))};
  if (!launch(c, kernel, params, needs, random_options(c.most_blocks))) return;
  for (int e = 0; e < c.batch; e++) {
    for (int ch = 0; ch < c.channels; ch++) {
      cd f = c.last ? Number<S>::from(dh_last.at(e, ch)) : cd(0);
      double size = std::abs(f);
      for (int t = c.seqlen - 1; t >= 0; t--) {
        const bool start = cuts.at(e, t), alone = start || (t == 0 && !c.h0);
        const cd g = dh.get(e, t, ch) + f, back = std::conj(a.get(e, t, ch));
        size += std::abs(dh.get(e, t, ch));
        const cd before = t > 0 ? h.get(e, t - 1, ch) : c.h0 ? Number<S>::from(h0.at(e, ch)) : cd(0);
        const cd grad = alone ? cd(0) : product(g, std::conj(before));
        const Where at = {e, t, ch};
        const double grad_error = alone ? 0 : N::bound * size * std::abs(before);
        if (!matches(c, "db", at, db.get(e, t, ch), g, N::bound * size, N::unit)) return;
        if (!matches(c, "da", at, da.get(e, t, ch), grad, grad_error, N::unit)) return;
        f = start ? cd(0) : product(back, g);
        size = start ? 0 : size * std::abs(back);
      }
      if (!c.h0) continue;
      if (!matches(c, "dh0", {e, 0, ch}, Number<S>::from(dh0.at(e, ch)), f, N::bound * size, 0)) return;
    }
  }
  if (!da.is_clean_outside() || !db.is_clean_outside() || !dh0.is_clean_outside()) fail(c, "wrote outside");
}
