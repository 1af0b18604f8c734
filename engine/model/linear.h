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

// W.grad += dy^T * x, or = where `accumulate` is false; from the transposed codes instead, if there are any.
void wgrad(const Context&, const Weight&, const Tensor& dy, const Quantized& dy8t, const Tensor& x,
           const Quantized& x8t, bool accumulate);

// Where the producer of a gradient writes the FP8 codes that its reader takes, as quantize with this scale would. Empty
// where the reader quantises for itself (ModelShape::codes_from_producers).
struct GradientCodes {
  Quantized fp8, fp8t;  // [N, d]; transposed, of an FP8 weight gradient
  DelayedScale scale;
};
GradientCodes gradient_codes(const Context&, Fp8Slot, int64_t layer, const Quantized& fp8, const Quantized& fp8t);

// Rows [first, first + count) of an FP8 matrix.
Quantized row_slice(const Quantized&, int64_t first, int64_t count);

}  // namespace assay
