// Dense and grouped products on CUDA: checks shapes and types, then picks a kernel. Same arguments as the CPU twins.
#pragma once

#include <cuda_runtime.h>

#include "engine/ops/cuda/tiling.h"
#include "engine/ops/cuda/workspace.h"
#include "engine/ops/gemm.h"
#include "engine/ops/grouped_gemm.h"
#include "engine/ops/rope.h"

namespace assay::cuda {

// BF16 operands: a * b^T and a * b into BF16 (with residual), a^T * b accumulated into FP32.
void gemm(cudaStream_t, const GemmArgs&, Workspace);
// Scales tensorwise, rowwise, or 1x128 of a and 128x128 of b: into BF16 (with residual). Tensorwise: also accumulated
// into FP32.
void gemm_fp8(cudaStream_t, const GemmFp8Args&, Workspace);
// Heads of 128 in BF16 from BF16 operands or tensorwise E4M3 ones: QK-norm + RoPE in the product's epilogue. Otherwise
// the product, then qk_norm_rope.
void project_qkv(cudaStream_t, const ProjectQkvArgs&, Workspace, const Tiling& = {});
// Groups start at multiples of 128 rows; rows between a group's end and the next multiple of 128 are written too.
void grouped_gemm(cudaStream_t, const GroupedGemmArgs&, Workspace);
// As above; those padding rows must hold zeros.
void grouped_wgrad(cudaStream_t, const GroupedWgradArgs&, Workspace);

}  // namespace assay::cuda
