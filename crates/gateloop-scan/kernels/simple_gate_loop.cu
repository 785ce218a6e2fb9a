// The fused SimpleGateLoop operator, forward.
#include "gate_loop.cuh"

GATE_LOOP(simple_gate_loop_f32, Simple, float, 13, 7, 2, 3, 1)
GATE_LOOP(simple_gate_loop_f64, Simple, double, 13, 7, 1, 3, 1)
GATE_LOOP(simple_gate_loop_bf16, Simple, bf16, 13, 16, 1, 3, 1)
GATE_LOOP(simple_gate_loop_f16, Simple, f16, 13, 16, 1, 3, 1)

// For devices that give a block less shared memory: two of these blocks take 164 KB, one 82.
GATE_LOOP(simple_gate_loop_f32_small, Simple, float, 6, 10, 1, 3, 2)
GATE_LOOP(simple_gate_loop_f64_small, Simple, double, 6, 5, 1, 3, 2)
GATE_LOOP(simple_gate_loop_bf16_small, Simple, bf16, 6, 14, 1, 3, 2)
GATE_LOOP(simple_gate_loop_f16_small, Simple, f16, 6, 14, 1, 3, 2)
