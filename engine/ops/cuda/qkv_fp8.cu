#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

void fp8_qkv_product(cudaStream_t stream, const Product& x, const GroupedParams& p) {
  launch_product<GroupedConfig<GemmType::e4m3_e4m3, Epilogue::qk_rope>>(stream, x, p);
}

}  // namespace assay::cuda
