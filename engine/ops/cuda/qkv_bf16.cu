#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

void bf16_qkv_product(cudaStream_t stream, const Product& x, const GroupedParams& p) {
  launch_product<GroupedConfig<GemmType::bf16, Epilogue::qk_rope>>(stream, x, p);
}

}  // namespace assay::cuda
