// softcap + cross entropy, forward and backward in one pass over a chunk of logits.
#pragma once

#include "engine/ops/quantize.h"
#include "engine/ops/tensor.h"

namespace assay {

// z = softcap * tanh(logits / softcap) in FP32 (f64); loss[r] = logsumexp(z) - z[target]; on return logits holds
// dloss/dlogits * grad_scale (rounded to logits.dtype), unless forward_only.
struct SoftcapXentArgs {
  Tensor logits;   // [C, V] bf16 | f32 | f64, in and out
  Tensor targets;  // i32 [C], in [0, V)
  Tensor loss;     // f32 | f64 [C] out
  double softcap = 15.0;
  double grad_scale = 1.0;  // 1 / (tokens of the step)
  bool forward_only = false;
  // Optional, tensorwise, of one format: quantize's codes of the gradient, [C, V] and transposed [V, C], with the
  // static scale of its bound: |dloss/dlogits| <= 1. With both of them logits is worth nothing on return.
  Quantized grad8, grad8t;
};
// The static scale of those codes.
inline float gradient_scale(const SoftcapXentArgs& a) {
  return static_cast<float>(a.grad_scale) / fp8_max((a.grad8 ? a.grad8 : a.grad8t).codes.dtype);
}

namespace cpu {
void softcap_xent(const SoftcapXentArgs&);
}  // namespace cpu
}  // namespace assay
