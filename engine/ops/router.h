// norm + router: FP32 logits, sigmoid, biased top-k with ties to the lower index, normalised weights, expert counts.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// n = norm(x) (rounded), p = sigmoid(n . Wr^T) in FP32 (f64), picks = the k experts with the largest p + bias (a tie
// goes to the lower expert index), in that order; weight = p_pick / sum(p_picks).
struct NormRouteArgs {
  Tensor x;         // [N, d]
  Tensor router_w;  // f32 | f64 [E, d] master
  Tensor bias;      // f32 [E], selection only
  Tensor n, rstd;   // out
  Quantized n8;     // optional FP8 copy of n out, scaled as MixNormArgs::n8
  Tensor picks;     // i32 [N, k] out
  Tensor probs;     // f32 | f64 [N, k] out: p of the picks
  Tensor weights;   // f32 | f64 [N, k] out
  Tensor counts;    // i32 [E] out: tokens routed to each expert
};
// Where each (token, pick) goes: rows of expert e in ascending token order from start[e].
// start/rows are written by this op: capacity == 0: start = prefix sum of counts, rows = counts (dynamic);
// capacity > 0: start[e] = e * capacity, rows[e] = capacity (static). Every start is rounded up to a multiple of
// `alignment`, so that a tile of that many rows meets one expert only. The buffer must hold N*k + E*(alignment - 1)
// rows (E * capacity rounded up, if static); those of no expert are padding. A token beyond its expert's capacity gets
// the expert's last row as its slot, which belongs to another token: what follows stays inside the buffer but is wrong
// for it, so whoever reads the counts later must discard the step.
struct RoutePlanArgs {
  Tensor picks, counts, weights;
  int64_t capacity = 0;
  Tensor start, rows;  // i32 [E] out
  Tensor slot;         // i32 [N, k] out: row in the permuted buffer
  Tensor token_of;     // i32 [R] out: token of a permuted row, -1 = padding
  Tensor gate_of;      // f32 | f64 [R] out: weight of a permuted row, 0 = padding
  int64_t alignment = 1;
};
// bias_e += rate * sign(mean(total) - total_e). total i32 [E]: loads summed over the step's micro-batches and ranks.
struct RouterBiasArgs {
  Tensor bias, total;
  float rate = 0;
  const int32_t* skip = nullptr;  // device: a step's verdict (step_state.h), or null
};

namespace cpu {
void norm_route(const NormRouteArgs&);
void route_plan(const RoutePlanArgs&);
void router_bias_update(const RouterBiasArgs&);
}  // namespace cpu
}  // namespace assay
