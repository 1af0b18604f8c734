#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

template <GemmType type, Epilogue epilogue>
using Config = GroupedConfig<type, epilogue, false, 256, false, Scales::blockwise>;

}  // namespace

void fp8_blockwise_product(cudaStream_t stream, Epilogue epilogue, DType a, const Product& x, const GroupedParams& p) {
  if (epilogue == Epilogue::relu2)
    launch_product<Config<GemmType::e4m3_e4m3, Epilogue::relu2>>(stream, x, p);
  else if (a == DType::fp8_e5m2)
    launch_product<Config<GemmType::e5m2_e4m3, Epilogue::none>>(stream, x, p);
  else
    launch_product<Config<GemmType::e4m3_e4m3, Epilogue::none>>(stream, x, p);
}

}  // namespace assay::cuda
