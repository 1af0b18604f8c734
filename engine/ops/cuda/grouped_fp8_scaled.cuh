// Which kernels multiply FP8 operands with a scale per row or block: a family a source file, for its compile time.
#pragma once

#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

// Epilogues none and relu2.
template <Scales scales>
void scaled_product(cudaStream_t stream, Epilogue epilogue, DType a, const Product& x, const GroupedParams& p) {
  constexpr auto e4m3 = GemmType::e4m3_e4m3, e5m2 = GemmType::e5m2_e4m3;
  if (epilogue == Epilogue::relu2)
    launch_product<GroupedConfig<e4m3, Epilogue::relu2, false, 256, false, scales>>(stream, x, p);
  else if (a == DType::fp8_e5m2)
    launch_product<GroupedConfig<e5m2, Epilogue::none, false, 256, false, scales>>(stream, x, p);
  else
    launch_product<GroupedConfig<e4m3, Epilogue::none, false, 256, false, scales>>(stream, x, p);
}

template <Scales scales, Epilogue epilogue>
void scaled_product_of(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  constexpr int bn = scaled_hidden_columns;
  if (a == DType::fp8_e5m2)
    launch_product<GroupedConfig<GemmType::e5m2_e4m3, epilogue, false, bn, false, scales>>(stream, x, p);
  else
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, epilogue, false, bn, false, scales>>(stream, x, p);
}

// Those that read `hidden`: residual and relu2_grad.
template <Scales scales>
void scaled_product_hidden(cudaStream_t stream, Epilogue epilogue, DType a, const Product& x, const GroupedParams& p) {
  if (epilogue == Epilogue::residual)
    scaled_product_of<scales, Epilogue::residual>(stream, a, x, p);
  else
    scaled_product_of<scales, Epilogue::relu2_grad>(stream, a, x, p);
}

}  // namespace assay::cuda
