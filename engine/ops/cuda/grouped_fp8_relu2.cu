#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

void fp8_relu2_codes(cudaStream_t stream, const Product& x, const GroupedParams& p) {
  if (x.transposed != nullptr)
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, OutType::e4m3, Epilogue::relu2, true>>(stream, x, p);
  else
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, OutType::e4m3, Epilogue::relu2>>(stream, x, p);
}

}  // namespace assay::cuda
