// The part of moe_norm_grad that is the router's matrix.
#pragma once

#include <cuda_runtime.h>

#include "engine/ops/cuda/workspace.h"
#include "engine/ops/tensor.h"

namespace assay::cuda {

// router_w_grad[e] += sum_t dlogit[t, e] * n[t], in an order that the shape fixes.
struct RouterWeightGrad {
  Tensor n;              // [N, d]
  const int32_t* picks;  // [N, k]
  const float* dlogits;  // [N, k]: of the picks
  int E, k;
  float* router_w_grad;  // [E, d]
};
void router_weight_grad(cudaStream_t, const RouterWeightGrad&, Workspace);

// Its last step: router_w_grad[i] += the parts [blocks, count] of it, in the order of the blocks.
void sum_router_parts(cudaStream_t, const float* parts, int64_t blocks, int count, float* router_w_grad);

}  // namespace assay::cuda
