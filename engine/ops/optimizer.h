// Optimizer updates. Sources: AdamW arXiv:1711.05101; Muon (K. Jordan, kellerjordan.github.io/posts/muon); Polar Express
// arXiv:2505.16932; NorMuon arXiv:2510.05491; row equilibration arXiv:2603.28254; Muon+ arXiv:2602.21545.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// p *= 1 - lr*wd; m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); p -= lr/(1-b1^t) * m / (sqrt(v/(1-b2^t)) + eps).
// All tensors f32 (or all f64), same shape. step t is 1-based.
struct AdamWArgs {
  Tensor param, grad, m, v;
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  int64_t step = 1;
};

// One stack of K matrices [K, R, C], each orthogonalised on its own, in the order: Nesterov momentum, row
// equilibration, Polar Express (5 iterations, BF16 products unless `full_precision`), Frobenius renormalisation to
// sqrt(min(R, C)), factored second moment (over the longer side), cautious weight decay, update.
// The learning rate given is multiplied by sqrt(max(1, R/C)). BF16 rounds once at each store: X = bf16(g), equilibrated X,
// normalised X, then per iteration A = X^T X (X X^T when R <= C), B = bA + cAA, X = aX + XB.
struct MuonArgs {
  Tensor param, grad;      // f32 | f64 [K, R, C]; grad is overwritten
  Tensor momentum;         // f32 | f64 [K, R, C]
  Tensor second_moment;    // f32 | f64 [K, R] if R >= C else [K, C]
  double lr = 0, momentum_beta = 0, beta2 = 0.9, weight_decay = 0;
  bool full_precision = false;  // products in FP32 instead of BF16: parity checks. f64 tensors always use f64
};

namespace cpu {
void adamw(const AdamWArgs&);
void muon(const MuonArgs&);
}  // namespace cpu
}  // namespace assay
