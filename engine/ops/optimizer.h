// Optimizer updates. Sources: AdamW arXiv:1711.05101; Muon (K. Jordan, kellerjordan.github.io/posts/muon); Polar
// Express arXiv:2505.16932; NorMuon arXiv:2510.05491; row equilibration arXiv:2603.28254; Muon+ arXiv:2602.21545.
#pragma once

#include <vector>

#include "engine/ops/tensor.h"

namespace assay {

// p *= 1 - lr*wd; m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); p -= lr/(1-b1^t) * m / (sqrt(v/(1-b2^t)) + eps).
// All tensors f32 (or all f64), same shape. step t is 1-based.
struct AdamWArgs {
  Tensor param, grad, m, v;
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  int64_t step = 1;
  const int32_t* skip = nullptr;  // device: a step's verdict (step_state.h), or null
};

// A parameter of K matrices [K, R, C] and its state.
struct MuonStack {
  Tensor param, grad;    // f32 | f64 [K, R, C]; grad may be overwritten
  Tensor momentum;       // f32 | f64 [K, R, C]
  Tensor second_moment;  // f32 | f64 [K, R] if R >= C else [K, C]
};

// Coefficients of the five iterations X <- aX + (bA + cAA)X (arXiv:2505.16932), for X of a norm below 1 / 1.01.
struct PolarExpress {
  double a, b, c;
};
inline constexpr PolarExpress polar_express[] = {
    {8.156554524902461, -22.48329292557795, 15.878769915207462},
    {4.042929935166739, -2.808917465908714, 0.5000178451051316},
    {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
    {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
    {2.3465413258596377, -1.7097828382687081, 0.42323551169305323},
};

// What the schedule sets every step.
struct MuonRates {
  double lr = 0, momentum_beta = 0, beta2 = 0.9, weight_decay = 0;
};

// Stacks of one R and C, of any K: one call for all of them, because a single parameter does not fill a GPU. Each
// matrix is orthogonalised on its own, in the order: Nesterov momentum, row equilibration, Polar Express (5 iterations,
// BF16 products unless `full_precision`), Frobenius renormalisation to sqrt(min(R, C)), factored second moment (over
// the longer side), cautious weight decay, update. The learning rate given is multiplied by sqrt(max(1, R/C)). BF16
// rounds once at each store: X = bf16(g), equilibrated X, normalised X, then per iteration A = X^T X (X X^T when R <=
// C), B = bA + cAA, X = aX + XB.
struct MuonArgs {
  std::vector<MuonStack> stacks;
  MuonRates rates;
  bool full_precision = false;    // products in FP32 instead of BF16: parity checks. f64 tensors always use f64
  const int32_t* skip = nullptr;  // device: a step's verdict (step_state.h), or null
};

namespace cpu {
void adamw(const AdamWArgs&);
void muon(const MuonArgs&);
void check_muon(const MuonArgs&);  // shapes and types; for every backend
}  // namespace cpu
}  // namespace assay
