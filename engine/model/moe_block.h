// x += moe(norm(x)) of one layer: router, routed experts, shared expert; forward and backward.
#pragma once

#include <memory>
#include <optional>

#include "engine/model/experts.h"

namespace assay {

// Static execution: a step sent an expert more rows than its capacity. Nothing was dropped; the micro-batch must be run
// again with a plan of a larger capacity.
struct CapacityExceeded {
  int64_t layer = 0;
  int64_t expert = 0;
  int64_t rows = 0;
};

class MoeBlock {
 public:
  MoeBlock(const Context&, int64_t layer);
  // x [N, d] in and out.
  std::optional<CapacityExceeded> forward(const Tensor& x);
  // dx [N, d]: gradient of the block's output on entry, of its input on return.
  void backward(const Tensor& dx);

 private:
  std::optional<CapacityExceeded> route(const Tensor& x);
  std::optional<CapacityExceeded> over_capacity() const;
  void shared_forward();
  void shared_backward(const Tensor& dy);
  std::unique_ptr<Experts> make_experts() const;

  const Context& c_;
  int64_t layer_;
  const Weight &router_, &w1_, &w2_;  // w1, w2 of the shared expert
  Tensor bias_, counts_;              // [E] of this layer
  Tensor n_, rstd_, picks_, probs_, weights_, start_, rows_, slot_, token_of_, gate_of_;
  Tensor h_, y_, routed_y_;  // shared expert; routed experts
  Tensor du_, dz_, dn_shared_, dn_, dxg_, gate_grad_, dweights_;
  Quantized n8_, h8_, dmoe8_, dz8_;
  WgradScratch w1_scratch_, w2_scratch_;
  std::unique_ptr<Experts> experts_;
};

}  // namespace assay
