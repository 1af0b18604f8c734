#include "engine/ops/cuda/wgrad_launch.cuh"

namespace assay::cuda {

// Two sets of accumulators for 256 columns do not fit into the registers.
void fp8_weight_gradient_promoted(cudaStream_t stream, DType a, const WeightGradient& x, const WgradParams& p,
                                  Workspace workspace) {
  if (a == DType::fp8_e5m2)
    launch_wgrad<WgradConfig<GemmType::e5m2_e4m3, 192, 5, true>>(stream, x, p, workspace);
  else
    launch_wgrad<WgradConfig<GemmType::e4m3_e4m3, 192, 5, true>>(stream, x, p, workspace);
}

}  // namespace assay::cuda
