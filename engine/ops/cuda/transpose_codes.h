// FP8 codes in the other orientation: of one scale, so nothing is rounded again.
#pragma once

#include <cuda_runtime_api.h>

#include "engine/ops/tensor.h"

namespace assay::cuda {

// codes [R, K] -> transposed [K, R]; K a multiple of 128, both at 16-byte addresses.
void transpose_codes(cudaStream_t, const Tensor& codes, const Tensor& transposed);

}  // namespace assay::cuda
