// x += attention(norm(resid_lambda * x + x0_lambda * x0)) of one layer, forward and backward.
#pragma once

#include "engine/model/linear.h"

namespace assay {

class AttentionBlock {
 public:
  AttentionBlock(const Context&, int64_t layer);
  // x [N, d] in and out, on entry without `add`; x0 [N, d], empty without residual lambdas.
  void forward(const Tensor& x, const Tensor& x0, const ExpertSum& add);
  // dx [N, d]: gradient of the block's output on entry, of its input on return; dx0 is added to, and
  // like x0 empty without residual lambdas. The codes of what it is on entry are in incoming(), those of what it is on
  // return go to `outgoing`.
  void backward(const Tensor& dx, const Tensor& x0, const Tensor& dx0, const GradientCodes& outgoing);
  GradientCodes incoming() const { return gradient_codes(c_, Fp8Slot::attention_grad, layer_, dx8_, dx8t_); }

 private:
  void project_back(const Tensor& dx);
  void rope_back();

  const Context& c_;
  int64_t layer_;
  int64_t window_;
  const Weight &wqkv_, &wo_;
  const Weight *ve_, *gate_;         // null on layers without value embedding
  Tensor resid_lambda_, x0_lambda_;  // [1] of this layer; empty if the run has none
  Tensor resid_lambda_grad_, x0_lambda_grad_;
  Tensor n_, rstd_, qkv_, qk_rstd_, attention_, lse_;
  Tensor dout_, dqkv_, dn_;
  Quantized n8_, attention8_, dx8_, dqkv8_;
  Quantized n8t_, attention8t_, dx8t_, dqkv8t_;  // of FP8 weight gradients
};

}  // namespace assay
