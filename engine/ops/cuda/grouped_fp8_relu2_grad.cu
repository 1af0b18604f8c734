#include "engine/ops/cuda/codes_launch.cuh"

namespace assay::cuda {
namespace {

template <bool transposed>
void launch(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  if (a == DType::fp8_e5m2)
    launch_codes<CodesConfig<GemmType::e5m2_e4m3, Epilogue::relu2_grad, transposed>>(stream, x, p);
  else
    launch_codes<CodesConfig<GemmType::e4m3_e4m3, Epilogue::relu2_grad, transposed>>(stream, x, p);
}

}  // namespace

void fp8_relu2_grad_codes(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  if (x.transposed != nullptr)
    launch<true>(stream, a, x, p);
  else
    launch<false>(stream, a, x, p);
}

}  // namespace assay::cuda
