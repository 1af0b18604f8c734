// RMSNorm without learnable weight, fused with what stands around it. n = x * rstd, rstd = 1/sqrt(mean(x^2) + eps),
// eps = 1e-6 (rms_eps); statistics and sums in FP32 (f64 for f64), every stored activation rounded once to its dtype.
#pragma once

#include <cmath>

#include "engine/ops/quantize.h"
#include "engine/ops/tensor.h"

namespace assay {

inline constexpr double rms_eps = 1e-6;

// Static tensorwise scale of the codes of normed rows of d: |RMSNorm(x)_j| <= sqrt(d).
inline float normed_scale(DType codes, int64_t d) {
  return std::sqrt(static_cast<float>(d)) / fp8_max(codes);
}

// x[i] = norm(wte[tokens[i]]): rows are read from the FP32 master table rounded to x.dtype first.
struct EmbedNormArgs {
  Tensor tokens;  // i32 [N]
  Tensor table;   // f32 | f64 [V, d]
  Tensor x;       // [N, d] out
  Tensor rstd;    // f32 | f64 [N] out
};
// table_grad[tokens[i]] += d(embedding row); rows of one token are summed in ascending i (deterministic).
struct EmbedNormGradArgs {
  Tensor tokens, x, rstd;
  Tensor dx;          // [N, d]
  Tensor table_grad;  // f32 | f64 [V, d], accumulated
};
// Plain lookup of the value embeddings' gradient: table_grad[tokens[i]] += dy[i].
struct EmbedGradArgs {
  Tensor tokens, dy, table_grad;
};

// What a mixture-of-experts block adds to a row t of the residual stream: sum_j weights[t, j] * y[slot[t, j]] +
// shared[t], as combine (permute.h) does it.
struct ExpertSum {
  Tensor y, slot;  // [R, d], i32 [N, k]
  Tensor weights;  // f32 | f64 [N, k]
  Tensor shared;   // [N, d]
  explicit operator bool() const { return static_cast<bool>(y); }
};

// x = resid_lambda * x_in + x0_lambda * x0 (rounded to x.dtype), n = norm(x). With the lambdas empty: x = x_in, and x
// may be empty (not written). x may alias x_in.
struct MixNormArgs {
  Tensor x_in, x0;                 // [N, d]
  Tensor resid_lambda, x0_lambda;  // f32 | f64 [1] each, or both empty
  Tensor x, n, rstd;               // [N, d], [N, d], f32 | f64 [N]
  // Optional FP8 copy of the rounded n. tensorwise: the static scale sqrt(d) / format max, which bounds every |n_j|;
  // the other modes take their scales from n.
  Quantized n8;
  // Optional: what x_in still lacks. The op then works on what combine would have written, x_in + the sum, rounded.
  ExpertSum add;
};
// Gradient. dx holds dL/dx of the mixed x on entry (from the residual path) and dL/dx_in on return:
//   g = dx + norm'(dn);  dx = resid_lambda * g;  dx0 += x0_lambda * g;
//   resid_lambda_grad += sum(g * x_in), x0_lambda_grad += sum(g * x0).
// x_in is not kept: x = n / rstd, x_in = (x - x0_lambda * x0) / resid_lambda; so resid_lambda must not be 0.
// dn may be empty (no norm branch). With the lambdas empty: dx = g, and x0, dx0 and the lambda gradients are empty too.
struct MixNormGradArgs {
  Tensor dn, n, rstd, x0;
  Tensor resid_lambda, x0_lambda;            // f32 | f64 [1] each, or both empty
  Tensor dx;                                 // [N, d] in and out
  Tensor dx0;                                // [N, d], accumulated; in dx.dtype or f32
  Tensor resid_lambda_grad, x0_lambda_grad;  // f32 | f64 [1], accumulated
  // Optional, either or both, tensorwise: quantize's codes of the dx that was stored, [N, d] and transposed [d, N],
  // with this delayed scale; `calibrate` as in QuantizeArgs.
  Quantized dx8, dx8t;
  DelayedScale dx8_scale;
  bool calibrate = false;
  // Optional, tensorwise: codes of n, transposed [d, N], with the static scale of MixNormArgs::n8.
  Quantized n8t;
};

namespace cpu {
void embed_norm(const EmbedNormArgs&);
void embed_norm_grad(const EmbedNormGradArgs&);
void embed_grad(const EmbedGradArgs&);
void mix_norm(const MixNormArgs&);
void mix_norm_grad(const MixNormGradArgs&);
}  // namespace cpu
}  // namespace assay
