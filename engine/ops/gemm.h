// Dense matrix products. The FP8 recipe: docs/engine.md, "Precision".
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// out[M, N] = op(a) * op(b) (+ out if accumulate) (+ residual). One rounding, at the store: out.dtype.
// op(a): a is [M, K], or [K, M] with transpose_a. op(b): b is [K, N], or [N, K] with transpose_b.
// a, b: both f64, both f32 or both bf16; products and sums in f64 for f64, else FP32. out: f64 | f32 | bf16.
struct GemmArgs {
  Tensor a, b;
  bool transpose_a = false;
  bool transpose_b = true;
  Tensor out;
  Tensor residual;          // [M, N] in out.dtype or empty; may be `out` itself
  bool accumulate = false;  // out += product (FP32 gradient buffers)
};

// FP8: out[M, N] = a[M, K] * b[N, K]^T with both operands K-major ("TN"), scales applied to FP32 accumulators:
// tensorwise and rowwise after the sum, block modes after every 128 of K.
struct GemmFp8Args {
  Quantized a, b;
  Tensor out;
  Tensor residual;
  bool accumulate = false;
  // Tensor cores keep about 14 bits of an FP8 sum (DeepSeek-V3, arXiv 2412.19437, section 3.3.2). Where one term can be
  // as large as thousands of others, as the target's in a gradient of logits, those get lost: the sum is then to move
  // to FP32 every 1,024 terms. Not with a residual.
  bool promote = false;
};

namespace cpu {
void gemm(const GemmArgs&);
void gemm_fp8(const GemmFp8Args&);
}  // namespace cpu
}  // namespace assay
