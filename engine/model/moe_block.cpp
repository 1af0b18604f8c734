#include "engine/model/moe_block.h"

#include <vector>

namespace assay {

MoeBlock::MoeBlock(const Context& c, int64_t layer)
    : c_(c),
      layer_(layer),
      router_(c.weights.at(layer_name(layer, "router"))),
      w1_(c.weights.at(layer_name(layer, "w1_shared"))),
      w2_(c.weights.at(layer_name(layer, "w2_shared"))) {
  const ModelShape& s = c.shape;
  const int64_t N = s.tokens, k = s.top_k, E = s.experts, R = s.routed_rows;
  bias_ = c.take("router_bias", DType::f32, {s.layers, E}).slice(layer, 1).view({E});
  counts_ = c.take("counts", DType::i32, {s.layers, E}).slice(layer, 1).view({E});
  n_ = c.layer(layer, "n2", c.act, {N, s.d});
  rstd_ = c.layer(layer, "rstd2", c.master, {N});
  picks_ = c.layer(layer, "picks", DType::i32, {N, k});
  probs_ = c.layer(layer, "probs", c.master, {N, k});
  weights_ = c.layer(layer, "weights", c.master, {N, k});
  start_ = c.layer(layer, "start", DType::i32, {E});
  rows_ = c.layer(layer, "rows", DType::i32, {E});
  slot_ = c.layer(layer, "slot", DType::i32, {N, k});
  token_of_ = c.layer(layer, "token_of", DType::i32, {R});
  gate_of_ = c.layer(layer, "gate_of", c.master, {R});
  h_ = c.layer(layer, "h_shared", c.act, {N, s.h});
  y_ = c.layer(layer, "y_shared", c.act, {N, s.d});
  routed_y_ = c.layer(layer, "y", c.act, {R, s.d});
  du_ = c.layer(layer, "du_shared", c.act, {N, s.h});
  dz_ = c.layer(layer, "dz_shared", c.act, {N, s.h});
  dn_shared_ = c.layer(layer, "dn_shared", c.act, {N, s.d});
  dn_ = c.layer(layer, "dn2", c.act, {N, s.d});
  dxg_ = c.layer(layer, "dxg", c.act, {R, s.d});
  gate_grad_ = c.layer(layer, "gate_grad", c.master, {R});
  dweights_ = c.layer(layer, "dweights", c.master, {N, k});
  if (s.dense_fp8) {
    n8_ = c.fp8(layer_name(layer, "n2_8"), DType::fp8_e4m3, N, s.d);
    h8_ = c.fp8(layer_name(layer, "h_shared_8"), DType::fp8_e4m3, N, s.h);
    dmoe8_ = c.fp8(layer_name(layer, "dmoe_8"), c.grad_format(), N, s.d);
    dz8_ = c.fp8(layer_name(layer, "dz_shared_8"), c.grad_format(), N, s.h);
    w1_scratch_ = WgradScratch::take(c, layer_name(layer, "w1_shared"), N, s.h, s.d);
    w2_scratch_ = WgradScratch::take(c, layer_name(layer, "w2_shared"), N, s.d, s.h);
  }
  experts_ = make_experts();
}

std::unique_ptr<Experts> MoeBlock::make_experts() const {
  const ModelShape& s = c_.shape;
  const int64_t N = s.tokens, R = s.routed_rows;
  ExpertBuffers b{.w1 = &c_.weights.at(layer_name(layer_, "w1")),
                  .w2 = &c_.weights.at(layer_name(layer_, "w2")),
                  .start = start_,
                  .rows = rows_,
                  .token_of = token_of_,
                  .gate_of = gate_of_,
                  .n = n_,
                  .hidden = c_.layer(layer_, "hidden", c_.act, {R, s.h}),
                  .y = routed_y_,
                  .dz = c_.layer(layer_, "dz", c_.act, {R, s.h}),
                  .gate_grad = gate_grad_,
                  .dxg = dxg_};
  const auto rows8 = [&](const char* what, DType format, int64_t rows, int64_t cols) {
    return c_.fp8(layer_name(layer_, what), format, rows, cols);
  };
  if (s.eager) b.du = c_.layer(layer_, "du", c_.act, {R, s.h});
  if (s.routed_fp8) {
    b.n8 = n8_;
    b.xg8 = rows8("xg_8", DType::fp8_e4m3, R, s.d);
    b.hidden8 = rows8("hidden_8", DType::fp8_e4m3, R, s.h);
    b.dyg8 = rows8("dyg_8", c_.grad_format(), R, s.d);
    b.dz8 = rows8("dz_8", c_.grad_format(), R, s.h);
  } else {
    b.xg = c_.layer(layer_, "xg", c_.act, {R, s.d});
  }
  if (s.routed_fp8 && s.wgrad_fp8) {
    b.gated8 = rows8("gated_8", DType::fp8_e4m3, R, s.h);
    b.n_again8 = rows8("n2_again_8", DType::fp8_e4m3, N, s.d);
    b.xg_again8 = rows8("xg_again_8", DType::fp8_e4m3, R, s.d);
  } else {
    b.dyg = c_.layer(layer_, "dyg", c_.act, {R, s.d});
    b.xg_again = c_.layer(layer_, "xg_again", c_.act, {R, s.d});
  }
  if (s.eager) return std::make_unique<LoopedExperts>(c_, layer_, std::move(b));
  return std::make_unique<GroupedExperts>(c_, layer_, std::move(b));
}

std::optional<CapacityExceeded> MoeBlock::forward(const Tensor& x) {
  if (const auto exceeded = route(x)) return exceeded;
  shared_forward();
  experts_->forward();
  c_.ops.combine({.y = routed_y_, .slot = slot_, .weights = weights_, .shared = y_, .residual = x, .out = x});
  c_.saw(layer_, "x_after_moe", x);
  return std::nullopt;
}

std::optional<CapacityExceeded> MoeBlock::route(const Tensor& x) {
  const ModelShape& s = c_.shape;
  c_.ops.norm_route({.x = x,
                     .router_w = router_.master.view({s.experts, s.d}),
                     .bias = bias_,
                     .n = n_,
                     .rstd = rstd_,
                     .n8 = n8_,
                     .picks = picks_,
                     .probs = probs_,
                     .weights = weights_,
                     .counts = counts_});
  c_.saw(layer_, "n2", n_);
  c_.saw(layer_, "router_weights", weights_);
  if (s.capacity > 0)
    if (const auto exceeded = over_capacity()) return exceeded;
  c_.ops.route_plan({.picks = picks_,
                     .counts = counts_,
                     .weights = weights_,
                     .capacity = s.capacity,
                     .start = start_,
                     .rows = rows_,
                     .slot = slot_,
                     .token_of = token_of_,
                     .gate_of = gate_of_});
  return std::nullopt;
}

std::optional<CapacityExceeded> MoeBlock::over_capacity() const {
  std::vector<int32_t> counts(static_cast<size_t>(c_.shape.experts));
  c_.ops.copy_to_host(counts.data(), counts_.data, counts_.bytes());
  CapacityExceeded worst{.layer = layer_};
  for (size_t e = 0; e < counts.size(); ++e)
    if (counts[e] > worst.rows) worst = {layer_, static_cast<int64_t>(e), counts[e]};
  if (worst.rows <= c_.shape.capacity) return std::nullopt;
  return worst;
}

void MoeBlock::shared_forward() {
  fprop(c_, w1_, n_, n8_, h_);
  c_.ops.relu2({.z = h_, .h = h_});
  c_.saw(layer_, "h_shared", h_);
  if (h8_) quantize(c_, h_, delayed_range(Fp8Slot::shared_hidden, layer_), h8_);
  fprop(c_, w2_, h_, h8_, y_);
  c_.saw(layer_, "y_shared", y_);
}

void MoeBlock::backward(const Tensor& dx) {
  const ModelShape& s = c_.shape;
  if (dmoe8_) quantize(c_, dx, delayed_range(Fp8Slot::moe_grad, layer_), dmoe8_);
  shared_backward(dx);
  experts_->backward(dx, dmoe8_);
  c_.ops.combine({.y = dxg_, .slot = slot_, .shared = dn_shared_, .out = dn_});
  c_.ops.gather_scalar({.rows = gate_grad_, .slot = slot_, .out = dweights_});
  c_.ops.router_grad({.dweights = dweights_,
                      .picks = picks_,
                      .probs = probs_,
                      .weights = weights_,
                      .n = n_,
                      .router_w = router_.master.view({s.experts, s.d}),
                      .router_w_grad = router_.grad.view({s.experts, s.d}),
                      .dn = dn_});
  c_.ops.mix_norm_grad({.dn = dn_, .n = n_, .rstd = rstd_, .dx = dx});
}

void MoeBlock::shared_backward(const Tensor& dy) {
  const Fp8Range dy_range = delayed_range(Fp8Slot::moe_grad, layer_);
  dgrad(c_, w2_, dy, dmoe8_, du_);
  wgrad(c_, w2_, dy, dy_range, h_, delayed_range(Fp8Slot::shared_hidden, layer_), w2_scratch_);
  c_.ops.relu2_grad({.du = du_, .h = h_, .dz = dz_});
  const Fp8Range dz_range = delayed_range(Fp8Slot::shared_grad, layer_);
  if (dz8_) quantize(c_, dz_, dz_range, dz8_);
  wgrad(c_, w1_, dz_, dz_range, n_, norm_range(c_.shape), w1_scratch_);
  dgrad(c_, w1_, dz_, dz8_, dn_shared_);
}

}  // namespace assay
