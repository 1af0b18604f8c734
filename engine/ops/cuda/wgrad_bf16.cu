#include "engine/ops/cuda/wgrad_launch.cuh"

namespace assay::cuda {

void bf16_weight_gradient(cudaStream_t stream, const WeightGradient& x, const WgradParams& p, Workspace workspace) {
  launch_wgrad<WgradConfig<GemmType::bf16, 256, 4>>(stream, x, p, workspace);
}

}  // namespace assay::cuda
