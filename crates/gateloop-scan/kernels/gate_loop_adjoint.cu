// The gradient of the fused GateLoop operator for heads of width 1.
#include "gate_loop_adjoint.cuh"

GATE_LOOP_ADJOINT(gate_loop_adjoint_f32, MaxHeads, float, 5, 4, 1, 3, 3)
GATE_LOOP_ADJOINT(gate_loop_adjoint_f64, MaxHeads, double, 6, 2, 1, 3, 2)
GATE_LOOP_ADJOINT(gate_loop_adjoint_bf16, MaxHeads, bf16, 6, 4, 2, 3, 2)
GATE_LOOP_ADJOINT(gate_loop_adjoint_f16, MaxHeads, f16, 6, 4, 2, 3, 2)
