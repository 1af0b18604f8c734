#include "engine/model/moe_block.h"

namespace assay {

MoeBlock::MoeBlock(const Context& c, int64_t layer)
    : c_(c), layer_(layer), router_(c.weights.at(layer_name(layer, "router"))) {
  const ModelShape& s = c.shape;
  const int64_t N = s.tokens, k = s.top_k, E = s.experts, R = s.routed_rows;
  bias_ = c.take("router_bias", DType::f32, {s.layers, E}).slice(layer, 1).view({E});
  counts_ = c.take("counts", DType::i32, {s.layers, E}).slice(layer, 1).view({E});
  rstd_ = c.layer(layer, "rstd2", c.master, {N});
  picks_ = c.layer(layer, "picks", DType::i32, {N, k});
  probs_ = c.layer(layer, "probs", c.master, {N, k});
  weights_ = c.layer(layer, "weights", c.master, {N, k});
  n_.plain = c.layer(layer, "n2", c.act, {N, s.d});
  y_shared_ = c.layer(layer, "y_shared", c.act, {N, s.d});
  dn_shared_ = c.layer(layer, "dn_shared", c.act, {N, s.d});
  if (s.dense_fp8) {
    n_.fp8 = c.fp8(layer_name(layer, "n2_8"), DType::fp8_e4m3, N, s.d);
    dy_.fp8 = c.fp8(layer_name(layer, "dmoe_8"), c.grad_format(), N, s.d);
  }
  if (s.wgrad_fp8) {
    n_.fp8t = c.fp8(layer_name(layer, "n2_8t"), DType::fp8_e4m3, s.d, N);
    dy_.fp8t = c.fp8(layer_name(layer, "dmoe_8t"), c.grad_format(), s.d, N);
  }
  routing_ = {.groups = c.layer(layer, "groups", DType::i32, {2, E}),
              .slot = c.layer(layer, "slot", DType::i32, {N, k}),
              .token_of = c.layer(layer, "token_of", DType::i32, {R}),
              .gate_of = c.layer(layer, "gate_of", c.master, {R})};
  experts_ = std::make_unique<Experts>(c, layer, routing_);
  shared_ = FeedForward::make(c, layer,
                              {.w1 = &c.weights.at(layer_name(layer, "w1_shared")),
                               .w2 = &c.weights.at(layer_name(layer, "w2_shared")),
                               .suffix = "_shared",
                               .rows = N,
                               .hidden = Fp8Slot::shared_hidden,
                               .grad = Fp8Slot::shared_grad});
}

Tensor MoeBlock::router_weight() const {
  return router_.master.view({c_.shape.experts, c_.shape.d});
}

ExpertSum MoeBlock::forward(const Tensor& x) {
  route(x);
  shared_->forward(n_, y_shared_);
  experts_->forward(n_);
  const ExpertSum sum{.y = experts_->y(), .slot = routing_.slot, .weights = weights_, .shared = y_shared_};
  if (!c_.probe) return sum;
  c_.ops.combine({.y = sum.y, .slot = sum.slot, .weights = sum.weights, .shared = sum.shared, .residual = x, .out = x});
  c_.saw(layer_, "x_after_moe", x);
  return {};
}

void MoeBlock::route(const Tensor& x) {
  c_.ops.norm_route({.x = x,
                     .router_w = router_weight(),
                     .bias = bias_,
                     .n = n_.plain,
                     .rstd = rstd_,
                     .n8 = n_.fp8,
                     .picks = picks_,
                     .probs = probs_,
                     .weights = weights_,
                     .counts = counts_});
  c_.saw(layer_, "n2", n_.plain);
  c_.saw(layer_, "router_weights", weights_);
  const int64_t E = c_.shape.experts;
  c_.ops.route_plan({.picks = picks_,
                     .counts = counts_,
                     .weights = weights_,
                     .capacity = c_.shape.capacity,
                     .start = routing_.groups.slice(0, 1).view({E}),
                     .rows = routing_.groups.slice(1, 1).view({E}),
                     .slot = routing_.slot,
                     .token_of = routing_.token_of,
                     .gate_of = routing_.gate_of,
                     .alignment = c_.shape.row_alignment});
}

void MoeBlock::backward(const Tensor& dx, const GradientCodes& outgoing) {
  dy_.plain = dx;
  if (dy_.fp8 && !c_.shape.codes_from_producers)
    quantize(c_, dx, delayed_range(Fp8Slot::moe_grad, layer_), dy_.fp8, dy_.fp8t);
  shared_->backward_down(dy_);
  shared_->backward_input(dn_shared_);
  experts_->backward(dy_, n_);
  c_.ops.moe_norm_grad({.dxg = experts_->dx(),
                        .slot = routing_.slot,
                        .dn_shared = dn_shared_,
                        .gate_grad = experts_->gate_grad(),
                        .picks = picks_,
                        .probs = probs_,
                        .weights = weights_,
                        .n = n_.plain,
                        .rstd = rstd_,
                        .router_w = router_weight(),
                        .router_w_grad = router_.grad.view({c_.shape.experts, c_.shape.d}),
                        .dx = dx,
                        .dx8 = outgoing.fp8,
                        .dx8t = outgoing.fp8t,
                        .dx8_scale = outgoing.scale,
                        .calibrate = c_.calibrating,
                        .n8t = n_.fp8t});
  shared_->backward_weight(n_);
}

}  // namespace assay
