// The scan of a few tokens.
#include "scan.cuh"
#include "step.cuh"

template <class E>
DEVICE void scan_step(const ScanParams<E>& p) {
  using State = Wide<E>;
  const Lane lane = Lane::of_thread(p.shape);
  if (lane.channel >= p.shape.channels) return;
  const int tokens = int(p.shape.seqlen);
  E a[STEP_TOKENS], b[STEP_TOKENS];
  load_tokens(p.a, lane, tokens, a);
  load_tokens(p.b, lane, tokens, b);
  const i64 state = lane.state(p.shape);
  State h = p.h0 ? p.h0[state] : Constant<State>::zero();
  E* out = p.h.at + lane.batch * p.h.batch + lane.channel;
#pragma unroll
  for (int t = 0; t < STEP_TOKENS; t++) {
    if (t >= tokens) break;
    const bool is_cut = (t == 0 && !p.h0) || begins(p.starts, lane.batch, t);
    h = apply(widen(a[t]), widen(b[t]), is_cut, h);
    store_element(out + t * p.h.row, h);
  }
  if (p.h_last) p.h_last[state] = h;
}

#define SCAN_STEP(name, E) \
  KERNEL(STEP_THREADS, 4) scan_##name##_step(const ScanParams<E> params) { scan_step(params); }

SCAN_STEP(f32, float)
SCAN_STEP(f64, double)
SCAN_STEP(c64, Complex<float>)
SCAN_STEP(c128, Complex<double>)
SCAN_STEP(bf16, bf16)
SCAN_STEP(f16, f16)
