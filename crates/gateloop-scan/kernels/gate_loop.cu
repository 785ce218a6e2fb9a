// The fused GateLoop operator for heads of width 1, forward.
#include "gate_loop.cuh"

GATE_LOOP(gate_loop_f32, MaxHeads, float, 5, 4, 2, 3, 2)
GATE_LOOP(gate_loop_f64, MaxHeads, double, 6, 4, 1, 3, 2)
GATE_LOOP(gate_loop_bf16, MaxHeads, bf16, 6, 8, 2, 3, 2)
GATE_LOOP(gate_loop_f16, MaxHeads, f16, 6, 8, 2, 3, 2)
