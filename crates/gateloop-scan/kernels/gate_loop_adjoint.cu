// The gradient of the fused GateLoop operator for heads of width 1.
#include "gate_loop_adjoint.cuh"

GATE_LOOP_ADJOINT(gate_loop_adjoint_f32, MaxHeads, float, 14, 5, 1, 3, 1)
GATE_LOOP_ADJOINT(gate_loop_adjoint_f64, MaxHeads, double, 13, 2, 1, 3, 1)
GATE_LOOP_ADJOINT(gate_loop_adjoint_bf16, MaxHeads, bf16, 14, 6, 1, 3, 1)
GATE_LOOP_ADJOINT(gate_loop_adjoint_f16, MaxHeads, f16, 14, 6, 1, 3, 1)

// For devices that give a block less shared memory: two of these blocks take 164 KB, one 82.
GATE_LOOP_ADJOINT(gate_loop_adjoint_f32_small, MaxHeads, float, 6, 5, 1, 3, 2)
GATE_LOOP_ADJOINT(gate_loop_adjoint_f64_small, MaxHeads, double, 6, 2, 1, 3, 2)
GATE_LOOP_ADJOINT(gate_loop_adjoint_bf16_small, MaxHeads, bf16, 6, 5, 1, 3, 2)
GATE_LOOP_ADJOINT(gate_loop_adjoint_f16_small, MaxHeads, f16, 6, 5, 1, 3, 2)
