// Rows in the order of their token, rows of one token in ascending order: what deterministic embedding gradients walk.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/ops/cuda/workspace.h"

namespace assay::cuda {

struct SortedTokens {
  const int32_t* token;  // [N] ascending
  const int32_t* row;    // [N]
};
// A stable radix sort by bytes (8 bits a pass) on the device. tokens [N], each in [0, vocabulary).
SortedTokens sort_tokens(const char* op, cudaStream_t, const int32_t* tokens, int64_t N, int64_t vocabulary,
                         Workspace&);

}  // namespace assay::cuda
