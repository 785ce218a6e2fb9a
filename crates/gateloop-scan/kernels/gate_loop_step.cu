// The fused operators of a few tokens: a decoding step.
#include "gate_loop.cuh"
#include "step.cuh"

template <class E, class Kind>
DEVICE void gate_loop_step(const GateLoopParams<E, Kind>& p) {
  using State = typename Kind::template State<E>;
  using Z = typename Kind::template Gate<E>;
  using R = Wide<E>;
  const Lane lane = Lane::of_thread(p.shape);
  if (lane.channel >= p.shape.channels) return;
  const int tokens = int(p.shape.seqlen);
  E q[STEP_TOKENS], k[STEP_TOKENS], v[STEP_TOKENS];
  Z z[STEP_TOKENS];
  load_tokens(p.q, lane, tokens, q);
  load_tokens(p.k, lane, tokens, k);
  if constexpr (Kind::HAS_VALUE) load_tokens(p.v, lane, tokens, v);
  load_tokens(p.z, lane, tokens, z);
  const i64 state = lane.state(p.shape);
  State h = p.h0 ? p.h0[state] : Constant<State>::zero();
  // There is one, for tiles have more positions than there are tokens.
  if (p.checkpoints) p.checkpoints[state] = h;
  E* out = p.y.at + lane.batch * p.y.batch + lane.channel;
#pragma unroll
  for (int t = 0; t < STEP_TOKENS; t++) {
    if (t >= tokens) break;
    const bool is_cut = (t == 0 && !p.h0) || begins(p.starts, lane.batch, t);
    R x = widen(k[t]);
    if constexpr (Kind::HAS_VALUE) x *= widen(v[t]);
    h = apply(Kind::decay(widen(z[t]), p.mode).a, Kind::of_real(x), is_cut, h);
    store_element(out + t * p.y.row, widen(q[t]) * Kind::real(h));
  }
  if (p.h_last) p.h_last[state] = h;
}

#define GATE_LOOP_STEP(name, Kind, E)                                          \
  KERNEL(STEP_THREADS, 4) name##_step(const GateLoopParams<E, Kind> params) {  \
    gate_loop_step(params);                                                    \
  }

GATE_LOOP_STEP(gate_loop_f32, MaxHeads, float)
GATE_LOOP_STEP(gate_loop_f64, MaxHeads, double)
GATE_LOOP_STEP(gate_loop_bf16, MaxHeads, bf16)
GATE_LOOP_STEP(gate_loop_f16, MaxHeads, f16)
GATE_LOOP_STEP(simple_gate_loop_f32, Simple, float)
GATE_LOOP_STEP(simple_gate_loop_f64, Simple, double)
GATE_LOOP_STEP(simple_gate_loop_bf16, Simple, bf16)
GATE_LOOP_STEP(simple_gate_loop_f16, Simple, f16)
