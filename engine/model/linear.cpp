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
    c.ops.gemm_fp8({.a = dy8, .b = w.w8t, .out = dx, .residual = residual});
  else
    c.ops.gemm({.a = dy, .b = w.compute, .transpose_b = false, .out = dx, .residual = residual});
}

WgradScratch WgradScratch::take(const Context& c, const std::string& prefix, int64_t rows, int64_t dy_cols,
                                int64_t x_cols) {
  if (!c.shape.wgrad_fp8) return {};
  WgradScratch s;
  s.dy8 = c.fp8(prefix + "_dy8", c.grad_format(), rows, dy_cols);
  s.dy8t = c.fp8(prefix + "_dy8t", c.grad_format(), dy_cols, rows);
  s.x8 = c.fp8(prefix + "_x8", DType::fp8_e4m3, rows, x_cols);
  s.x8t = c.fp8(prefix + "_x8t", DType::fp8_e4m3, x_cols, rows);
  return s;
}

void wgrad(const Context& c, const Weight& w, const Tensor& dy, const Fp8Range& dy_range, const Tensor& x,
           const Fp8Range& x_range, const WgradScratch& scratch) {
  if (!scratch.dy8) {
    c.ops.gemm({.a = dy, .b = x, .transpose_a = true, .transpose_b = false, .out = w.product_grad, .accumulate = true});
    return;
  }
  quantize(c, dy, dy_range, scratch.dy8, scratch.dy8t);
  quantize(c, x, x_range, scratch.x8, scratch.x8t);
  c.ops.gemm_fp8({.a = scratch.dy8t, .b = scratch.x8t, .out = w.product_grad, .accumulate = true});
}

Quantized row_slice(const Quantized& q, int64_t first, int64_t count) {
  const bool per_row = q.mode == ScaleMode::rowwise || q.mode == ScaleMode::block_1x128;
  return {q.codes.slice(first, count), per_row ? q.scales.slice(first, count) : q.scales, q.mode};
}

}  // namespace assay
