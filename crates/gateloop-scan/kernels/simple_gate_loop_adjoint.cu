// The gradient of the fused SimpleGateLoop operator.
#include "gate_loop_adjoint.cuh"

GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f32, Simple, float, 13, 5, 2, 3, 1)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f64, Simple, double, 13, 5, 1, 3, 1)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_bf16, Simple, bf16, 13, 8, 2, 3, 1)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f16, Simple, f16, 13, 8, 2, 3, 1)

// For devices that give a block less shared memory: two of these blocks take 164 KB, one 82.
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f32_small, Simple, float, 5, 4, 2, 3, 2)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f64_small, Simple, double, 6, 3, 1, 3, 2)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_bf16_small, Simple, bf16, 5, 8, 2, 3, 2)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f16_small, Simple, f16, 5, 8, 2, 3, 2)
