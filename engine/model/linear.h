// The three products of a linear layer, in whatever precision its weight has.
#pragma once

#include "engine/model/context.h"

namespace assay {

// out[N, out] = x[N, in] * W^T (+ residual). x8 is read if the weight is FP8.
void fprop(const Context&, const Weight&, const Tensor& x, const Quantized& x8, const Tensor& out,
           const Tensor& residual = {});
// dx[N, in] = dy[N, out] * W (+ residual).
void dgrad(const Context&, const Weight&, const Tensor& dy, const Quantized& dy8, const Tensor& dx,
           const Tensor& residual = {});

// Scratch of an FP8 weight gradient: empty when the run keeps weight gradients in BF16.
struct WgradScratch {
  Quantized dy8, dy8t, x8, x8t;
  // Bound to "<prefix>_dy8" ...; dy [rows, dy_cols], x [rows, x_cols].
  static WgradScratch take(const Context&, const std::string& prefix, int64_t rows, int64_t dy_cols, int64_t x_cols);
};
// W.grad += dy^T * x. The ranges are those dy and x were quantised with for the other two products.
void wgrad(const Context&, const Weight&, const Tensor& dy, const Fp8Range& dy_range, const Tensor& x,
           const Fp8Range& x_range, const WgradScratch&);

// Rows [first, first + count) of an FP8 matrix.
Quantized row_slice(const Quantized&, int64_t first, int64_t count);

}  // namespace assay
