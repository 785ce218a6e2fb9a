// The fused operators and their adjoints against plain loops in double.
#pragma once
#include "cases.h"
#include "../gate_loop.cu"
#include "../gate_loop_adjoint.cu"
#include "../gate_loop_step.cu"
#include "../simple_gate_loop.cu"
#include "../simple_gate_loop_adjoint.cu"

inline double plain_sigmoid(double v) { return 1 / (1 + exp(-v)); }

template <class Kind>
cd plain_decay(cd z, u32 mode) {
  if (!Kind::HAS_VALUE) return plain_sigmoid(z.real());
  if (mode == IDENTITY) return 1;
  if (mode == REAL) return (z.real() < 0 ? -1 : 1) * plain_sigmoid(std::abs(z.real()));
  // arg 0 is 0; at negative zero it is pi.
  return z == cd(0) ? cd(copysign(.5, z.real())) : plain_sigmoid(std::abs(z)) * z / std::abs(z);
}

// The gradient of z from that of a: autograd of |z| and arg z, which hands back zero at zero. `spread`
// is how much an error of `da` counts.
template <class Kind>
cd plain_decay_gradient(cd z, cd da, u32 mode, double& spread) {
  if (!Kind::HAS_VALUE || mode == REAL) {
    const double size = plain_sigmoid(Kind::HAS_VALUE ? std::abs(z.real()) : z.real());
    spread = size * (1.05 - size); // 1 - size loses bits as size nears 1
    return Kind::HAS_VALUE && z.real() == 0 ? 0 : da.real() * size * (1 - size);
  }
  spread = 0;
  if (mode == IDENTITY || z == cd(0)) return 0;
  const double radius = std::abs(z), size = plain_sigmoid(radius);
  const cd direction = z / radius;
  const cd turned = da * std::conj(direction);
  spread = size * (1.05 - size) + size / radius;
  return direction * cd(turned.real() * size * (1 - size), turned.imag() * size / radius);
}

// What both passes read, and the states of a plain forward pass with the sizes of their errors.
template <class E, class Kind>
struct GateInputs {
  using S = typename Kind::template State<E>;
  using Z = typename Kind::template Gate<E>;
  Array<E> q, k, v;
  Array<Z> z;
  States<S> h0;
  Cuts cuts;

  explicit GateInputs(const Case& c)
      : q(c.batch, c.seqlen, c.channels, c.layout, c.reversed), k(c.batch, c.seqlen, c.channels, c.layout, c.reversed),
        v(c.batch, c.seqlen, c.channels, c.layout, c.reversed), z(c.batch, c.seqlen, c.channels, c.layout, c.reversed),
        h0(c.batch, c.channels), cuts(c) {
    q.fill([] { return gauss(); });
    k.fill([] { return gauss(); });
    v.fill([] { return gauss(); });
    z.fill([&] { return gate_of(c.decays, Kind::HAS_VALUE); });
    h0.fill(!c.h0);
    if (c.nan) k.at(int(dice.below(c.batch)), dice.below(c.seqlen), int(dice.below(c.channels))) = Number<E>::to(NAN);
  }
  bool is_cut(const Case& c, int e, int t) const { return cuts.at(e, t) || (t == 0 && !c.h0); }

  // states[t] is the state before position t; errors[t] what the computation may be off by.
  void forward(const Case& c, int e, int ch, std::vector<cd>& states, std::vector<double>& errors) {
    states.assign(1, Number<S>::from(h0.at(e, ch)));
    double size = std::abs(states[0]), drift = 0;
    errors.assign(1, 0);
    for (int t = 0; t < c.seqlen; t++) {
      const cd a = plain_decay<Kind>(z.get(e, t, ch), c.mode);
      const cd x = Kind::HAS_VALUE ? k.get(e, t, ch) * v.get(e, t, ch).real() : k.get(e, t, ch);
      const bool cut = is_cut(c, e, t);
      states.push_back(cut ? x : product(a, states.back()) + x);
      // The decays are rounded too, each by its own part.
      drift = cut ? 0 : std::abs(a) * (drift + size);
      size = cut ? std::abs(x) : std::abs(a) * size + std::abs(x);
      errors.push_back(Number<E>::bound * size + 16 * Number<E>::epsilon * drift);
    }
  }
};

// `adjoint` says how many positions its tiles have, which is where it wants checkpoints.
template <class E, class Kind, class K>
void check_gate_loop(const Case& c, K kernel, Kernel<GateLoopAdjointParams<E, Kind>> adjoint) {
  using S = typename Kind::template State<E>;
  using N = Number<E>;
  tally.cases++;
  const host::Needs needs = needs_of(kernel);
  const int len = adjoint ? needs_of<GateLoopAdjointParams<E, Kind>>(adjoint).positions : needs.positions;
  const bool keeps = dice.one_in(2);
  const int points = (c.seqlen + len - 1) / len;
  GateInputs<E, Kind> in(c);
  Array<E> y(c.batch, c.seqlen, c.channels, c.layout, c.reversed);
  States<S> last(c.batch, c.channels), checkpoints(c.batch, c.channels, points);
  GateLoopParams<E, Kind> params = {in.q.input(), in.k.input(), in.v.input(), in.z.input(), y.output(),
                                    c.h0 ? in.h0.data() : nullptr, c.last ? last.data() : nullptr,
                                    keeps ? checkpoints.data() : nullptr, in.cuts.starts,
                                    shape_of(c, needs, y.is_aligned() && in.z.is_aligned(), sizeof(E)), c.mode,
                                    u32(len)};
  if (!launch(c, kernel, params, needs, random_options(c.most_blocks))) return;
  std::vector<cd> states;
  std::vector<double> errors;
  for (int e = 0; e < c.batch; e++) {
    for (int ch = 0; ch < c.channels; ch++) {
      in.forward(c, e, ch, states, errors);
      for (int t = 0; t < c.seqlen; t++) {
        const double q = in.q.get(e, t, ch).real(), expected = q * states[t + 1].real();
        if (!matches(c, "y", {e, t, ch}, y.get(e, t, ch), expected, errors[t + 1] * fabs(q), N::unit)) return;
        if (!keeps || t % len != 0) continue;
        const cd kept = Number<S>::from(checkpoints.at(i64(e) * points + t / len, ch));
        if (!matches(c, "checkpoints", {e, t / len, ch}, kept, states[t], errors[t], 0)) return;
      }
      if (!c.last) continue;
      const cd got = Number<S>::from(last.at(e, ch));
      if (!matches(c, "h_last", {e, 0, ch}, got, states[c.seqlen], errors[c.seqlen], 0)) return;
    }
  }
  if (!y.is_clean_outside() || !last.is_clean_outside() || !checkpoints.is_clean_outside()) fail(c, "wrote outside");
}

template <class E, class Kind>
void check_gate_loop_adjoint(Case c, Kernel<GateLoopAdjointParams<E, Kind>> kernel) {
  using S = typename Kind::template State<E>;
  using Z = typename Kind::template Gate<E>;
  using N = Number<E>;
  tally.cases++;
  c.nan = false; // a state of NaN comes with the checkpoints, and then is everywhere behind
  const host::Needs needs = needs_of<GateLoopAdjointParams<E, Kind>>(kernel);
  GateInputs<E, Kind> in(c);
  const auto make = [&] { return Array<E>(c.batch, c.seqlen, c.channels, c.layout, c.reversed); };
  Array<E> dy = make(), dq = make(), dk = make(), dv = make();
  Array<Z> dz(c.batch, c.seqlen, c.channels, c.layout, c.reversed);
  dy.fill([] { return gauss(); });
  const int chunks = (c.seqlen + needs.positions - 1) / needs.positions;
  States<S> checkpoints(c.batch, c.channels, chunks), dh_last(c.batch, c.channels), dh0(c.batch, c.channels);
  dh_last.fill();
  std::vector<std::vector<cd>> states(size_t(c.batch * c.channels));
  std::vector<std::vector<double>> errors(states.size());
  for (int e = 0; e < c.batch; e++) {
    for (int ch = 0; ch < c.channels; ch++) {
      std::vector<cd>& line = states[size_t(e * c.channels + ch)];
      in.forward(c, e, ch, line, errors[size_t(e * c.channels + ch)]);
      for (int chunk = 0; chunk < chunks; chunk++) {
        checkpoints.at(i64(e) * chunks + chunk, ch) = Number<S>::to(line[size_t(chunk * needs.positions)]);
      }
    }
  }
  GateLoopAdjointParams<E, Kind> params = {
      in.q.input(), in.k.input(), in.v.input(), in.z.input(), dy.input(), dq.output(), dk.output(), dv.output(),
      dz.output(), checkpoints.data(), c.last ? dh_last.data() : nullptr, c.h0 ? dh0.data() : nullptr, in.cuts.starts,
      shape_of(c, needs, dq.is_aligned() && dz.is_aligned(), sizeof(E)), c.mode, c.h0};
  if (!launch(c, kernel, params, needs, random_options(c.most_blocks))) return;
  for (int e = 0; e < c.batch; e++) {
    for (int ch = 0; ch < c.channels; ch++) {
      const std::vector<cd>& line = states[size_t(e * c.channels + ch)];
      const std::vector<double>& error = errors[size_t(e * c.channels + ch)];
      cd f = c.last ? Number<S>::from(dh_last.at(e, ch)) : cd(0);
      double size = std::abs(f), drift = 0;
      for (int t = c.seqlen - 1; t >= 0; t--) {
        const double q = in.q.get(e, t, ch).real(), k = in.k.get(e, t, ch).real(), v = in.v.get(e, t, ch).real();
        const double down = dy.get(e, t, ch).real();
        const cd z = in.z.get(e, t, ch), a = plain_decay<Kind>(z, c.mode), g = q * down + f;
        size += fabs(q * down);
        const double g_error = N::bound * size + 16 * N::epsilon * drift;
        const bool start = in.cuts.at(e, t);
        const bool alone = start || (t == 0 && !c.h0);
        const cd da = alone ? cd(0) : product(g, std::conj(line[t]));
        double spread = 0;
        const cd expected_z = plain_decay_gradient<Kind>(z, da, c.mode, spread);
        const double z_error = (g_error * std::abs(line[t]) + std::abs(g) * error[t] + g_error * error[t] +
                                N::bound * size * std::abs(line[t])) * spread;
        const double by = Kind::HAS_VALUE ? v : 1; // the other factor of the input
        const struct { const char* name; cd got, expected; double error; } answers[] = {
            {"dq", dq.get(e, t, ch), down * line[t + 1].real(), fabs(down) * error[t + 1]},
            {"dk", dk.get(e, t, ch), g.real() * by, g_error * fabs(by)},
            {"dv", dv.get(e, t, ch), g.real() * k, g_error * fabs(k)},
            {"dz", dz.get(e, t, ch), expected_z, z_error},
        };
        for (const auto& answer : answers) {
          if (!Kind::HAS_VALUE && answer.name[1] == 'v') continue;
          if (!matches(c, answer.name, {e, t, ch}, answer.got, answer.expected, answer.error, N::unit)) return;
        }
        f = start ? cd(0) : product(std::conj(a), g);
        drift = start ? 0 : std::abs(a) * (drift + size);
        size = start ? 0 : std::abs(a) * size;
      }
      if (!c.h0) continue;
      const double allowed = N::bound * size + 16 * N::epsilon * drift;
      if (!matches(c, "dh0", {e, 0, ch}, Number<S>::from(dh0.at(e, ch)), f, allowed, 0)) return;
    }
  }
  if (!dq.is_clean_outside() || !dk.is_clean_outside() || !dv.is_clean_outside() || !dz.is_clean_outside() ||
      !dh0.is_clean_outside()) {
    fail(c, "wrote outside");
  }
}
