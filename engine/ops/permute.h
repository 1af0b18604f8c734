// Moving token rows into expert order and back.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// Row r of the permuted buffer comes from row token_of[r], or is padding where token_of[r] == -1. One of three forms:
//   x -> out            out[r] = gate[r] * x[token_of[r]]: product in FP32, one rounding; padding rows are zeros.
//   x8 -> out8          codes and row scales are copied as bytes, never requantised; padding rows get code 0 and scale
//                       1. No gate. Tensorwise: out8.scales receives x8's.
//   x -> out8, out8t    tensorwise: codes = cast(gate[r] * x[token_of[r]] * (1 / scale)), the product with the gate in
//                       FP32 and not rounded; `scale` is an input, and both outputs' scales receive it. out8t [d, R] is
//                       the transposed copy; either output may be empty. Padding gets code 0.
struct PermuteArgs {
  Tensor token_of;  // i32 [R]
  Tensor x, out;
  Quantized x8, out8, out8t;
  Tensor scale;  // f32 [1]: of the third form
  Tensor gate;   // f32 | f64 [R] or empty
  // Optional: route_plan's slot, i32 [N, k], the same mapping seen from the tokens. A backend may then read each row of
  // x once and write it k times instead of reading it k times.
  Tensor slot;
};
// out[t] = residual[t] + sum_j weights[t, j] * y[slot[t, j]] (+ shared[t]), summed in FP32 in the order j = 0..k-1 then
// shared then residual; one rounding. weights empty = ones. residual may be empty or alias out.
struct CombineArgs {
  Tensor y, slot;   // [R, d], i32 [N, k]
  Tensor weights;   // f32 | f64 [N, k] or empty
  Tensor shared;    // [N, d] or empty
  Tensor residual;  // [N, d] or empty
  Tensor out;       // [N, d]
};

namespace cpu {
void permute(const PermuteArgs&);
void combine(const CombineArgs&);
}  // namespace cpu
}  // namespace assay
