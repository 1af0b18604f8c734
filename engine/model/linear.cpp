#include "engine/model/linear.h"

namespace assay {

void quantize(const Context& c, const Tensor& x, const Fp8Range& range, const Quantized& out,
              const Quantized& transposed) {
  QuantizeArgs args{.x = x, .out = out, .transposed = transposed};
  if ((out ? out : transposed).mode == ScaleMode::tensorwise) {
    if (range.slot < 0) {
      args.static_scale = range.static_scale;
    } else {
      args.delayed = c.delayed_scale(range.slot);
      args.calibrate = c.calibrating;
    }
  }
  c.ops.quantize(args);
}

void fprop(const Context& c, const Weight& w, const Tensor& x, const Quantized& x8, const Tensor& out,
           const Tensor& residual) {
  if (w.w8)
    c.ops.gemm_fp8({.a = x8, .b = w.w8, .out = out, .residual = residual});
  else
    c.ops.gemm({.a = x, .b = w.compute, .transpose_b = true, .out = out, .residual = residual});
}

void dgrad(const Context& c, const Weight& w, const Tensor& dy, const Quantized& dy8, const Tensor& dx,
           const Tensor& residual) {
  if (w.w8)
    c.ops.gemm_fp8({.a = dy8, .b = w.w8t, .out = dx, .residual = residual, .promote = w.promote_gradients()});
  else
    c.ops.gemm({.a = dy, .b = w.compute, .transpose_b = false, .out = dx, .residual = residual});
}

void wgrad(const Context& c, const Weight& w, const Tensor& dy, const Quantized& dy8t, const Tensor& x,
           const Quantized& x8t, bool accumulate) {
  if (dy8t)
    c.ops.gemm_fp8(
        {.a = dy8t, .b = x8t, .out = w.product_grad, .accumulate = accumulate, .promote = w.promote_gradients()});
  else
    c.ops.gemm(
        {.a = dy, .b = x, .transpose_a = true, .transpose_b = false, .out = w.product_grad, .accumulate = accumulate});
}

GradientCodes gradient_codes(const Context& c, Fp8Slot slot, int64_t layer, const Quantized& fp8,
                             const Quantized& fp8t) {
  if (!c.shape.codes_from_producers) return {};
  return {fp8, fp8t, c.delayed_scale(fp8_slot(slot, layer))};
}

Quantized row_slice(const Quantized& q, int64_t first, int64_t count) {
  const bool per_row = q.mode == ScaleMode::rowwise || q.mode == ScaleMode::block_1x128;
  return {q.codes.slice(first, count), per_row ? q.scales.slice(first, count) : q.scales, q.mode};
}

}  // namespace assay
