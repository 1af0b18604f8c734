// The end of the backward of a mixture-of-experts block: what its routed rows, its shared expert and its router say
// about the normed input, taken back through the norm in one pass.
#pragma once

#include "engine/ops/quantize.h"
#include "engine/ops/tensor.h"

namespace assay {

// dn = sum_j dxg[slot[t, j]] (j = 0..k-1) + dn_shared + sum_j dlogit[t, j] * router_w[picks[t, j]], where dlogit comes
// from dweight[t, j] = gate_grad[slot[t, j]] through weight = p / sum(p) and p = sigmoid(logit); the sum of the routed
// and shared rows first, that of the router's rows beside it, then the two. dn stays in FP32 (f64 for f64), it is never
// rounded. Then, as mix_norm_grad does without lambdas:
//   dx += rstd * (dn - n * mean(dn . n));  router_w_grad[e] += sum_t dlogit[t, e] * n[t], in a fixed order.
struct MoeNormGradArgs {
  Tensor dxg, slot;              // [R, d] in permuted order, i32 [N, k]
  Tensor dn_shared;              // [N, d]
  Tensor gate_grad;              // f32 | f64 [R]: of the weight that a permuted row had
  Tensor picks, probs, weights;  // as norm_route wrote them: i32, f32 | f64, f32 | f64 [N, k]
  Tensor n, rstd;                // [N, d], f32 | f64 [N]
  Tensor router_w;               // f32 | f64 [E, d]
  Tensor router_w_grad;          // f32 | f64 [E, d], accumulated
  Tensor dx;                     // [N, d] in and out
  // Optional, either or both, tensorwise: quantize's codes of the dx that was stored, [N, d] and transposed [d, N],
  // with this delayed scale; `calibrate` as in QuantizeArgs.
  Quantized dx8, dx8t;
  DelayedScale dx8_scale;
  bool calibrate = false;
  // Optional, tensorwise: codes of n, transposed [d, N], with the static scale of MixNormArgs::n8.
  Quantized n8t;
};

namespace cpu {
void moe_norm_grad(const MoeNormGradArgs&);
}  // namespace cpu
}  // namespace assay
