// The fused GateLoop operator for heads of width 1, forward.
#include "gate_loop.cuh"

GATE_LOOP(gate_loop_f32, MaxHeads, float, 13, 8, 1, 3, 1)
GATE_LOOP(gate_loop_f64, MaxHeads, double, 13, 4, 1, 3, 1)
GATE_LOOP(gate_loop_bf16, MaxHeads, bf16, 14, 8, 1, 4, 1)
GATE_LOOP(gate_loop_f16, MaxHeads, f16, 14, 8, 1, 4, 1)

// For devices that give a block less shared memory: two of these blocks take 164 KB, one 82.
GATE_LOOP(gate_loop_f32_small, MaxHeads, float, 6, 6, 1, 3, 2)
GATE_LOOP(gate_loop_f64_small, MaxHeads, double, 6, 3, 1, 3, 2)
GATE_LOOP(gate_loop_bf16_small, MaxHeads, bf16, 6, 8, 1, 3, 2)
GATE_LOOP(gate_loop_f16_small, MaxHeads, f16, 6, 8, 1, 3, 2)
