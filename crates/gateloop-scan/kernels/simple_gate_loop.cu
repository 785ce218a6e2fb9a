// The fused SimpleGateLoop operator, forward.
#include "gate_loop.cuh"

GATE_LOOP(simple_gate_loop_f32, Simple, float, 6, 6, 2, 3, 2)
GATE_LOOP(simple_gate_loop_f64, Simple, double, 6, 4, 1, 3, 2)
GATE_LOOP(simple_gate_loop_bf16, Simple, bf16, 6, 6, 4, 3, 2)
GATE_LOOP(simple_gate_loop_f16, Simple, f16, 6, 6, 4, 3, 2)
