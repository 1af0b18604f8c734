#include "engine/model/head.h"

#include <algorithm>

namespace assay {

Head::Head(const Context& c) : c_(c), w_(c.weights.at("lm_head")) {
  const ModelShape& s = c.shape;
  n_ = c.take("nf", c.act, {s.tokens, s.d});
  rstd_ = c.take("rstdf", c.master, {s.tokens});
  row_loss_ = c.take("row_loss", c.master, {s.tokens});
  dn_ = c.take("dnf", c.act, {s.tokens, s.d});
  logits_ = c.take("logits", c.act, {s.logits_rows, s.vocab});
  loss_sum_ = c.take("loss_sum", DType::f64, {1});
  if (!s.head_fp8) return;
  n8_ = c.fp8("nf_8", DType::fp8_e4m3, s.logits_rows, s.d);
  dlogits8_ = c.fp8("dlogits_8", c.grad_format(), s.logits_rows, s.vocab);
  if (!s.wgrad_fp8) return;
  n8t_ = c.fp8("nf_8t", DType::fp8_e4m3, s.d, s.logits_rows);
  dlogits8t_ = c.fp8("dlogits_8t", c.grad_format(), s.vocab, s.logits_rows);
}

void Head::forward(const Tensor& x, const ExpertSum& add, const Tensor& targets, double grad_scale) {
  c_.ops.mix_norm({.x_in = x, .n = n_, .rstd = rstd_, .add = add});
  c_.saw("nf", n_);
  for (int64_t first = 0; first < c_.shape.tokens; first += c_.shape.logits_rows)
    chunk(first, std::min(c_.shape.logits_rows, c_.shape.tokens - first), targets, grad_scale);
  c_.saw("row_loss", row_loss_);
  c_.ops.sum({.x = row_loss_, .out = loss_sum_.as<double>()});
}

void Head::chunk(int64_t first, int64_t count, const Tensor& targets, double grad_scale) {
  const ModelShape& s = c_.shape;
  const Tensor n = n_.slice(first, count), logits = logits_.slice(0, count), dn = dn_.slice(first, count);
  Quantized n8, dlogits8, n8t, dlogits8t;
  if (n8_) {
    n8 = row_slice(n8_, 0, count);
    dlogits8 = row_slice(dlogits8_, 0, count);
    if (n8t_) {  // the last chunk may be shorter, which for tensorwise scales is a narrower matrix in the same memory
      n8t = {Tensor(n8t_.codes.data, n8t_.codes.dtype, {s.d, count}), n8t_.scales, n8t_.mode};
      dlogits8t = {Tensor(dlogits8t_.codes.data, dlogits8t_.codes.dtype, {s.vocab, count}), dlogits8t_.scales,
                   dlogits8t_.mode};
    }
    quantize(c_, n, norm_range(s), n8, n8t);
  }
  fprop(c_, w_, n, n8, logits);
  c_.saw("logits", logits);
  c_.ops.softcap_xent({.logits = logits,
                       .targets = targets.slice(first, count),
                       .loss = row_loss_.slice(first, count),
                       .softcap = c_.config.model.softcap,
                       .grad_scale = grad_scale,
                       .forward_only = grad_scale <= 0,
                       .grad8 = s.codes_from_producers ? dlogits8 : Quantized{},
                       .grad8t = s.codes_from_producers ? dlogits8t : Quantized{}});
  if (grad_scale <= 0) return;
  if (dlogits8 && !s.codes_from_producers) quantize(c_, logits, {}, dlogits8, dlogits8t);
  dgrad(c_, w_, logits, dlogits8, dn);
  wgrad(c_, w_, logits, dlogits8t, n, n8t, c_.accumulating || first > 0);
}

void Head::backward(const Tensor& dx, const GradientCodes& codes) {
  c_.ops.fill_zero({dx});
  c_.ops.mix_norm_grad({.dn = dn_,
                        .n = n_,
                        .rstd = rstd_,
                        .dx = dx,
                        .dx8 = codes.fp8,
                        .dx8t = codes.fp8t,
                        .dx8_scale = codes.scale,
                        .calibrate = c_.calibrating});
}

}  // namespace assay
