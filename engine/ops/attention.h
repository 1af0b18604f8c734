// Causal (sliding-window) softmax attention, scale 1/sqrt(D), on the packed buffer by strides.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// qkv [B*T, 3, H, D] -> out [B*T, H, D]; lse f32 (f64) [B, H, T] = log sum exp of the scaled scores.
// Query t sees keys max(0, t - window + 1) .. t.  window >= T: full causal.
struct AttentionArgs {
  Tensor qkv, out, lse;
  int64_t B = 0, T = 0, window = 0;
};
// dqkv [B*T, 3, H, D] out (fully written). out, lse from the forward.
struct AttentionGradArgs {
  Tensor qkv, out, lse, dout, dqkv;
  int64_t B = 0, T = 0, window = 0;
};

namespace cpu {
void attention(const AttentionArgs&);
void attention_grad(const AttentionGradArgs&);
}  // namespace cpu
}  // namespace assay
