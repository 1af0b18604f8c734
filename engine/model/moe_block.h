// x += moe(norm(x)) of one layer: router, routed experts, shared expert; forward and backward.
#pragma once

#include <memory>

#include "engine/model/experts.h"

namespace assay {

class MoeBlock {
 public:
  MoeBlock(const Context&, int64_t layer);
  // x [N, d] -> what the block adds to it, for the norm that reads x next; with a probe x has it already, and nothing
  // is left to add. The layer's row of "counts" tells how many rows each expert got; if one got more than static
  // execution's capacity, the sum is worth nothing.
  ExpertSum forward(const Tensor& x);
  // dx [N, d]: gradient of the block's output on entry, of its input on return. The codes of what it is on entry are in
  // incoming(), those of what it is on return go to `outgoing`.
  void backward(const Tensor& dx, const GradientCodes& outgoing);
  GradientCodes incoming() const { return gradient_codes(c_, Fp8Slot::moe_grad, layer_, dy_.fp8, dy_.fp8t); }

 private:
  void route(const Tensor& x);
  Tensor router_weight() const;

  const Context& c_;
  int64_t layer_;
  const Weight& router_;
  Tensor bias_, counts_;  // [E] of this layer
  Tensor rstd_, picks_, probs_, weights_;
  Operand n_;   // normed input; transposed in the backward
  Operand dy_;  // gradient of the block's output
  Tensor y_shared_, dn_shared_;
  Routing routing_;
  std::unique_ptr<FeedForward> shared_;
  std::unique_ptr<Experts> experts_;
};

}  // namespace assay
