#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

template <Epilogue epilogue, int bn = 256>
void launch(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  if (a == DType::fp8_e5m2)
    launch_product<GroupedConfig<GemmType::e5m2_e4m3, epilogue, false, bn>>(stream, x, p);
  else
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, epilogue, false, bn>>(stream, x, p);
}

}  // namespace

void fp8_product(cudaStream_t stream, Epilogue epilogue, DType a, const Product& x, const GroupedParams& p) {
  if (epilogue == Epilogue::none)
    return narrow_tiles(x, p) ? launch<Epilogue::none, 192>(stream, a, x, p) : launch<Epilogue::none>(stream, a, x, p);
  if (epilogue == Epilogue::relu2_grad) return launch<Epilogue::relu2_grad>(stream, a, x, p);
  ASSAY_OP_CHECK(x.op, epilogue == Epilogue::relu2 && a == DType::fp8_e4m3, "relu^2 takes e4m3 operands");
  launch_product<GroupedConfig<GemmType::e4m3_e4m3, Epilogue::relu2>>(stream, x, p);
}

}  // namespace assay::cuda
