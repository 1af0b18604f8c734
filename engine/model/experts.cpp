#include "engine/model/experts.h"

namespace assay {

Experts::Experts(const Context& c, int64_t layer, const Routing& routing) : c_(c), layer_(layer), routing_(routing) {
  const ModelShape& s = c.shape;
  const int64_t R = s.routed_rows;
  const auto fp8 = [&](const char* what, DType format, int64_t rows, int64_t cols) {
    return c.fp8(layer_name(layer, what), format, rows, cols);
  };
  y_ = c.layer(layer, "y", c.act, {R, s.d});
  dx_ = c.layer(layer, "dxg", c.act, {R, s.d});
  gate_grad_ = c.layer(layer, "gate_grad", c.master, {R});
  if (s.routed_fp8) {
    x_.fp8 = fp8("xg_8", DType::fp8_e4m3, R, s.d);
    dy_.fp8 = fp8("dyg_8", c.grad_format(), R, s.d);
  } else {
    x_.plain = c.layer(layer, "xg", c.act, {R, s.d});
  }
  if (s.routed_fp8 && s.wgrad_fp8) {
    dy_.fp8t = fp8("dyg_8t", c.grad_format(), s.d, R);
    x_again_.fp8t = fp8("xg_8t", DType::fp8_e4m3, s.d, R);
  } else {
    dy_.plain = c.layer(layer, "dyg", c.act, {R, s.d});
    x_again_.plain = c.layer(layer, "xg_again", c.act, {R, s.d});
  }
  products_ = FeedForward::make(c, layer,
                                {.w1 = &c.weights.at(layer_name(layer, "w1")),
                                 .w2 = &c.weights.at(layer_name(layer, "w2")),
                                 .rows = R,
                                 .groups = routing.groups,
                                 .gate = routing.gate_of,
                                 .gate_grad = gate_grad_,
                                 .hidden = Fp8Slot::hidden,
                                 .grad = Fp8Slot::routed_grad});
}

void Experts::forward(const Operand& n) {
  PermuteArgs args{.token_of = routing_.token_of, .slot = routing_.slot};
  if (x_.fp8) {
    args.x8 = n.fp8;
    args.out8 = x_.fp8;
  } else {
    args.x = n.plain;
    args.out = x_.plain;
  }
  c_.ops.permute(args);
  products_->forward(x_, y_);
}

void Experts::backward(const Operand& dy, const Operand& n) {
  gather_grad(dy);
  products_->backward_down(dy_);
  // The experts' inputs are gathered again: keeping them would cost k rows per token and layer.
  gather_again(n);
  products_->backward_weight(x_again_);
  products_->backward_input(dx_);
}

// dy in permuted order, times the gates.
void Experts::gather_grad(const Operand& dy) {
  PermuteArgs args{.token_of = routing_.token_of, .x = dy.plain, .gate = routing_.gate_of, .slot = routing_.slot};
  if (dy_.plain) {
    args.out = dy_.plain;
  } else {  // gates are at most 1: the scale that bounds dy bounds them too
    args.out8 = dy_.fp8;
    args.out8t = dy_.fp8t;
    args.scale = dy.fp8.scales;
  }
  c_.ops.permute(args);
  if (dy_.plain && dy_.fp8) quantize(c_, dy_.plain, delayed_range(Fp8Slot::moe_grad, layer_), dy_.fp8);
}

void Experts::gather_again(const Operand& n) {
  PermuteArgs args{.token_of = routing_.token_of, .x = n.plain, .slot = routing_.slot};
  if (x_again_.plain) {
    args.out = x_again_.plain;
  } else {
    args.out8t = x_again_.fp8t;
    args.scale = n.fp8.scales;
  }
  c_.ops.permute(args);
}

}  // namespace assay
