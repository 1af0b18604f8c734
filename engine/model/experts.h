// The routed experts of one layer: from normed rows to expert outputs in permuted order, and back.
#pragma once

#include "engine/model/feed_forward.h"

namespace assay {

// Where each row goes, as route_plan writes it.
struct Routing {
  Tensor groups;    // i32 [2, E]
  Tensor slot;      // i32 [N, k]
  Tensor token_of;  // i32 [R]
  Tensor gate_of;   // [R]
};

class Experts {
 public:
  Experts(const Context&, int64_t layer, const Routing&);
  // n [N, d] -> y(). The routing is known.
  void forward(const Operand& n);
  // dy [N, d]: gradient of the block's output; n as in the forward -> dx(), gate_grad(), gradients of W1 and W2.
  void backward(const Operand& dy, const Operand& n);

  const Tensor& y() const { return y_; }                  // [R, d]
  const Tensor& dx() const { return dx_; }                // [R, d]
  const Tensor& gate_grad() const { return gate_grad_; }  // [R]

 private:
  void gather_grad(const Operand& dy);
  void gather_again(const Operand& n);

  const Context& c_;
  int64_t layer_;
  Routing routing_;
  Tensor y_, dx_, gate_grad_;
  Operand x_, dy_, x_again_;
  std::unique_ptr<FeedForward> products_;
};

}  // namespace assay
