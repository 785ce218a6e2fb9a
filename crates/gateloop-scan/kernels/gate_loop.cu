// The fused GateLoop operator for heads of width 1, forward.
#include "gate_loop.cuh"

GATE_LOOP(gate_loop_f32, MaxHeads, float, 5, 4, 2, 3, 2)
GATE_LOOP(gate_loop_f64, MaxHeads, double, 6, 4, 1, 3, 2)
GATE_LOOP(gate_loop_bf16, MaxHeads, bf16, 6, 8, 2, 3, 2)
GATE_LOOP(gate_loop_f16, MaxHeads, f16, 6, 8, 2, 3, 2)

// For devices that give a block 99 KB of shared memory.
GATE_LOOP(gate_loop_f64_small, MaxHeads, double, 6, 2, 1, 3, 2)
GATE_LOOP(gate_loop_bf16_small, MaxHeads, bf16, 6, 8, 1, 3, 2)
GATE_LOOP(gate_loop_f16_small, MaxHeads, f16, 6, 8, 1, 3, 2)
