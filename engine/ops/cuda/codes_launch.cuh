// Host side of the products into FP8 codes.
#pragma once

#include "engine/ops/cuda/codes_kernel.cuh"
#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

// x.transposed is wanted where C says so; then x.rows, and always x.n, is a multiple of 16, as the outputs' pitch is.
template <class C>
static void launch_codes(cudaStream_t stream, const Product& x, const GroupedParams& params) {
  const GroupedParams p = shape_params<C>(x, params);
  const CUtensorMap a = C::transposed ? row_order_map(x.op, x.a, x.rows, x.k, RowOrder::pairs, tile_m)
                                      : matrix_map(x.op, x.a, 1, x.rows, x.k, tile_m);
  const CUtensorMap b = row_order_map(x.op, x.b, p.groups * x.n, x.k, RowOrder::fours, C::bn);
  const CUtensorMap out = matrix_map(x.op, x.out, 1, x.rows, x.n, 64);
  const CUtensorMap hidden = C::loads_hidden ? matrix_map(x.op, x.hidden, 1, x.rows, x.n, 64) : out;
  const CUtensorMap transposed =
      C::transposed ? matrix_map(x.op, x.transposed, 1, x.n, x.rows, C::half_columns, 64) : out;
  static const bool configured = [] {
    ASSAY_CUDA_CHECK("grouped_gemm",
                     cudaFuncSetAttribute(codes_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
    return true;
  }();
  static_cast<void>(configured);
  codes_kernel<C><<<multiprocessors(), 384, C::smem, stream>>>(a, b, out, transposed, hidden, p);
  ASSAY_CUDA_LAUNCHED(x.op, describe(x.rows, x.n, x.k));
}

}  // namespace assay::cuda
