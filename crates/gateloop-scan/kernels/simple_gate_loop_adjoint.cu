// The gradient of the fused SimpleGateLoop operator.
#include "gate_loop_adjoint.cuh"

GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f32, Simple, float, 6, 6, 1, 3, 3)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f64, Simple, double, 6, 4, 1, 3, 2)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_bf16, Simple, bf16, 6, 6, 2, 3, 2)
GATE_LOOP_ADJOINT(simple_gate_loop_adjoint_f16, Simple, f16, 6, 6, 2, 3, 2)
