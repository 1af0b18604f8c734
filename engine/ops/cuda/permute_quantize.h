// permute's third form: rows of x, gated and cast to FP8 codes on their way, with a transposed copy.
#pragma once

#include <cuda_runtime.h>

#include "engine/ops/cuda/workspace.h"
#include "engine/ops/permute.h"

namespace assay::cuda {

void permute_quantize(cudaStream_t, const PermuteArgs&, Workspace);

}  // namespace assay::cuda
