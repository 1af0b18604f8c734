// Moving token rows into expert order and back.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// out[r] = x[token_of[r]] for r < token_of.numel(), times gate[r] (in FP32, one rounding) if there is a gate; zeros
// where token_of[r] == -1. With x8/out8 (never together with a gate): codes and row scales
// are copied as bytes (rowwise and block_1x128), never requantised; padding rows get code 0 and scale 1.
struct PermuteArgs {
  Tensor token_of;  // i32 [R]
  Tensor x, out;
  Quantized x8, out8;
  Tensor gate;  // f32 | f64 [R] or empty
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
// gather of a per-row scalar: out[t, j] = rows[slot[t, j]] (gate gradients back to token order).
struct GatherScalarArgs {
  Tensor rows, slot, out;  // f32 | f64 [R], i32 [N, k], f32 | f64 [N, k]
};

namespace cpu {
void permute(const PermuteArgs&);
void combine(const CombineArgs&);
void gather_scalar(const GatherScalarArgs&);
}  // namespace cpu
}  // namespace assay
