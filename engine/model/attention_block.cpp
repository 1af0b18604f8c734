#include "engine/model/attention_block.h"

namespace assay {

namespace {

Tensor element(const Tensor& vector, int64_t i) {
  return vector.view({vector.numel()}).slice(i, 1);
}

}  // namespace

AttentionBlock::AttentionBlock(const Context& c, int64_t layer)
    : c_(c),
      layer_(layer),
      window_(attention_window(c.config.model, static_cast<int>(layer))),
      wqkv_(c.weights.at(layer_name(layer, "wqkv"))),
      wo_(c.weights.at(layer_name(layer, "wo"))),
      ve_(c.weights.find(layer_name(layer, "value_embedding"))),
      gate_(c.weights.find(layer_name(layer, "ve_gate"))) {
  const ModelShape& s = c.shape;
  const int64_t N = s.tokens, d = s.d;
  n_ = c.layer(layer, "n1", c.act, {N, d});
  rstd_ = c.layer(layer, "rstd1", c.master, {N});
  qkv_ = c.layer(layer, "qkv", c.act, {N, 3, s.heads, s.head_dim});
  qk_rstd_ = c.layer(layer, "qk_rstd", c.master, {N, 2, s.heads});
  attention_ = c.layer(layer, "attention", c.act, {N, s.heads, s.head_dim});
  lse_ = c.layer(layer, "lse", c.master, {s.batch, s.heads, s.T});
  dout_ = c.layer(layer, "dout", c.act, {N, s.heads, s.head_dim});
  dqkv_ = c.layer(layer, "dqkv", c.act, {N, 3, s.heads, s.head_dim});
  dn_ = c.layer(layer, "dn1", c.act, {N, d});
  if (const Weight* resid = c.weights.find("resid_lambdas")) {
    const Weight& x0 = c.weights.at("x0_lambdas");
    resid_lambda_ = element(resid->master, layer);
    resid_lambda_grad_ = element(resid->grad, layer);
    x0_lambda_ = element(x0.master, layer);
    x0_lambda_grad_ = element(x0.grad, layer);
  }
  if (!s.dense_fp8) return;
  n8_ = c.fp8(layer_name(layer, "n1_8"), DType::fp8_e4m3, N, d);
  attention8_ = c.fp8(layer_name(layer, "attention_8"), DType::fp8_e4m3, N, d);
  dx8_ = c.fp8(layer_name(layer, "dattention_8"), c.grad_format(), N, d);
  dqkv8_ = c.fp8(layer_name(layer, "dqkv_8"), c.grad_format(), N, 3 * d);
  if (!s.wgrad_fp8) return;
  n8t_ = c.fp8(layer_name(layer, "n1_8t"), DType::fp8_e4m3, d, N);
  attention8t_ = c.fp8(layer_name(layer, "attention_8t"), DType::fp8_e4m3, d, N);
  dx8t_ = c.fp8(layer_name(layer, "dattention_8t"), c.grad_format(), d, N);
  dqkv8t_ = c.fp8(layer_name(layer, "dqkv_8t"), c.grad_format(), 3 * d, N);
}

void AttentionBlock::forward(const Tensor& x, const Tensor& x0, const ExpertSum& add) {
  const ModelShape& s = c_.shape;
  c_.ops.mix_norm({.x_in = x,
                   .x0 = x0,
                   .resid_lambda = resid_lambda_,
                   .x0_lambda = x0_lambda_,
                   .x = x,
                   .n = n_,
                   .rstd = rstd_,
                   .n8 = n8_,
                   .add = add});
  c_.saw(layer_, "n1", n_);
  QkNormRopeArgs rope{.qkv = qkv_, .cos = c_.cos, .sin = c_.sin, .rstd = qk_rstd_, .T = s.T};
  if (ve_ != nullptr) {
    rope.tokens = c_.tokens;
    rope.ve_table = ve_->master.view({s.vocab, s.d});
    rope.n = n_;
    rope.gate_w = gate_->master.view({s.heads, ve_gate_channels});
  }
  if (s.eager) {
    fprop(c_, wqkv_, n_, n8_, qkv_.view({s.tokens, 3 * s.d}));
    c_.ops.qk_norm_rope(rope);
  } else {
    c_.ops.project_qkv({.x = n_, .w = wqkv_.compute, .x8 = n8_, .w8 = wqkv_.w8, .rope = rope});
  }
  c_.saw(layer_, "qkv", qkv_);
  c_.ops.attention({.qkv = qkv_, .out = attention_, .lse = lse_, .B = s.batch, .T = s.T, .window = window_});
  c_.saw(layer_, "attention", attention_);
  const Tensor out = attention_.view({s.tokens, s.d});
  if (attention8_) quantize(c_, out, delayed_range(Fp8Slot::attention, layer_), attention8_);
  fprop(c_, wo_, out, attention8_, x, x);
  c_.saw(layer_, "x_after_attention", x);
}

void AttentionBlock::backward(const Tensor& dx, const Tensor& x0, const Tensor& dx0, const GradientCodes& outgoing) {
  project_back(dx);
  const ModelShape& s = c_.shape;
  c_.ops.attention_grad({.qkv = qkv_,
                         .out = attention_,
                         .lse = lse_,
                         .dout = dout_,
                         .dqkv = dqkv_,
                         .B = s.batch,
                         .T = s.T,
                         .window = window_});
  rope_back();
  c_.ops.mix_norm_grad({.dn = dn_,
                        .n = n_,
                        .rstd = rstd_,
                        .x0 = x0,
                        .resid_lambda = resid_lambda_,
                        .x0_lambda = x0_lambda_,
                        .dx = dx,
                        .dx0 = dx0,
                        .resid_lambda_grad = resid_lambda_grad_,
                        .x0_lambda_grad = x0_lambda_grad_,
                        .dx8 = outgoing.fp8,
                        .dx8t = outgoing.fp8t,
                        .dx8_scale = outgoing.scale,
                        .calibrate = c_.calibrating,
                        .n8t = n8t_});
  wgrad(c_, wqkv_, dqkv_.view({s.tokens, 3 * s.d}), dqkv8t_, n_, n8t_, c_.accumulating);
}

// dx -> dout, and the gradient of Wo.
void AttentionBlock::project_back(const Tensor& dx) {
  const ModelShape& s = c_.shape;
  const Tensor out = attention_.view({s.tokens, s.d});
  if (dx8_ && !s.codes_from_producers) quantize(c_, dx, delayed_range(Fp8Slot::attention_grad, layer_), dx8_, dx8t_);
  if (attention8t_) quantize(c_, out, delayed_range(Fp8Slot::attention, layer_), {}, attention8t_);
  wgrad(c_, wo_, dx, dx8t_, out, attention8t_, c_.accumulating);
  dgrad(c_, wo_, dx, dx8_, dout_.view({s.tokens, s.d}));
}

// dqkv of the normalised, rotated heads -> dn, and the gradient of the value embedding.
void AttentionBlock::rope_back() {
  const ModelShape& s = c_.shape;
  QkNormRopeGradArgs rope{.dqkv = dqkv_, .qkv = qkv_, .cos = c_.cos, .sin = c_.sin, .rstd = qk_rstd_, .T = s.T};
  if (ve_ != nullptr) {
    c_.ops.fill_zero({dn_});  // the gate adds to its first columns before the projection adds the rest
    rope.tokens = c_.tokens;
    rope.ve_table = ve_->master.view({s.vocab, s.d});
    rope.n = n_;
    rope.gate_w = gate_->master.view({s.heads, ve_gate_channels});
    rope.ve_table_grad = ve_->grad.view({s.vocab, s.d});
    rope.gate_w_grad = gate_->grad.view({s.heads, ve_gate_channels});
    rope.dn = dn_;
  }
  if (s.codes_from_producers) {
    rope.dqkv8 = dqkv8_;
    rope.dqkv8t = dqkv8t_;
    rope.dqkv8_scale = c_.delayed_scale(fp8_slot(Fp8Slot::qkv_grad, layer_));
    rope.calibrate = c_.calibrating;
  }
  c_.ops.qk_norm_rope_grad(rope);
  const Tensor dqkv = dqkv_.view({s.tokens, 3 * s.d});
  if (dqkv8_ && !s.codes_from_producers) quantize(c_, dqkv, delayed_range(Fp8Slot::qkv_grad, layer_), dqkv8_, dqkv8t_);
  dgrad(c_, wqkv_, dqkv, dqkv8_, dn_, ve_ != nullptr ? dn_ : Tensor{});
}

}  // namespace assay
