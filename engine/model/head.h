// Final norm, output layer and loss. Logits exist for a chunk of rows at a time.
#pragma once

#include "engine/model/linear.h"

namespace assay {

class Head {
 public:
  explicit Head(const Context&);
  // x [N, d] and what it still lacks -> loss_sum (f64 [1]) += sum of the rows' losses. With `grad_scale` > 0 also the
  // gradients of sum * grad_scale: of lm_head, and of the normed x, which backward() takes on.
  void forward(const Tensor& x, const ExpertSum& add, const Tensor& targets, double grad_scale);
  // -> dx [N, d], written, and its codes.
  void backward(const Tensor& dx, const GradientCodes&);

 private:
  void chunk(int64_t first, int64_t count, const Tensor& targets, double grad_scale);

  const Context& c_;
  const Weight& w_;
  Tensor n_, rstd_, row_loss_, dn_, logits_, loss_sum_;
  Quantized n8_, dlogits8_, n8t_, dlogits8t_;
};

}  // namespace assay
