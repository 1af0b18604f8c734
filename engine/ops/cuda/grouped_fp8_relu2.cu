#include "engine/ops/cuda/codes_launch.cuh"

namespace assay::cuda {

void fp8_relu2_codes(cudaStream_t stream, const Product& x, const GroupedParams& p) {
  if (x.transposed != nullptr)
    launch_codes<CodesConfig<GemmType::e4m3_e4m3, Epilogue::relu2, true>>(stream, x, p);
  else
    launch_codes<CodesConfig<GemmType::e4m3_e4m3, Epilogue::relu2, false>>(stream, x, p);
}

}  // namespace assay::cuda
