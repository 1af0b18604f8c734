// qk_norm_rope_grad's form without value embeddings that writes FP8 codes in place of, or beside, the gradient.
#pragma once

#include <cuda_runtime.h>

#include "engine/ops/rope.h"

namespace assay::cuda {

// Does it, unless it is for quantize after the plain form (false): scales to be calibrated, two formats, FP32, heads of
// other than 64 or 128 columns.
bool qk_norm_rope_grad_fp8(cudaStream_t, const QkNormRopeGradArgs&);

}  // namespace assay::cuda
