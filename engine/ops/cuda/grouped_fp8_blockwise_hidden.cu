#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

template <Epilogue epilogue>
void launch(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  constexpr int bn = scaled_hidden_columns;
  constexpr Scales scales = Scales::blockwise;
  if (a == DType::fp8_e5m2)
    launch_product<GroupedConfig<GemmType::e5m2_e4m3, epilogue, false, bn, false, scales>>(stream, x, p);
  else
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, epilogue, false, bn, false, scales>>(stream, x, p);
}

}  // namespace

void fp8_blockwise_product_hidden(cudaStream_t stream, Epilogue epilogue, DType a, const Product& x,
                                  const GroupedParams& p) {
  if (epilogue == Epilogue::residual)
    launch<Epilogue::residual>(stream, a, x, p);
  else
    launch<Epilogue::relu2_grad>(stream, a, x, p);
}

}  // namespace assay::cuda
