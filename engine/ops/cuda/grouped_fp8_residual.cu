#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

void fp8_product_residual(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  if (a == DType::fp8_e5m2)
    launch_product<GroupedConfig<GemmType::e5m2_e4m3, Epilogue::residual>>(stream, x, p);
  else
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, Epilogue::residual>>(stream, x, p);
}

}  // namespace assay::cuda
