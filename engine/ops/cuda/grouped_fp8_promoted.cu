#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

// Two sets of accumulators for 256 columns do not fit into the registers; scale_rows_and_columns takes no 192.
template <Scales scales>
constexpr int bn = scales == Scales::rowwise ? 128 : 192;

template <Scales scales>
void launch(cudaStream_t stream, DType a, const Product& x, const GroupedParams& p) {
  if (a == DType::fp8_e5m2)
    launch_product<GroupedConfig<GemmType::e5m2_e4m3, Epilogue::none, false, bn<scales>, false, scales, true>>(stream,
                                                                                                               x, p);
  else
    launch_product<GroupedConfig<GemmType::e4m3_e4m3, Epilogue::none, false, bn<scales>, false, scales, true>>(stream,
                                                                                                               x, p);
}

}  // namespace

void fp8_product_promoted(cudaStream_t stream, Scales scales, DType a, const Product& x, const GroupedParams& p) {
  if (scales == Scales::rowwise)
    launch<Scales::rowwise>(stream, a, x, p);
  else
    launch<Scales::tensorwise>(stream, a, x, p);
}

}  // namespace assay::cuda
