#include "engine/ops/cuda/gemm.h"

#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

GroupedParams dense(int64_t rows) {
  GroupedParams p{};
  p.groups = 1;
  p.group_rows = static_cast<int>(rows);
  p.alpha = p.beta = 1.0f;
  return p;
}

template <bool b_mn_major>
void product_bf16(cudaStream_t stream, const GemmArgs& g, int64_t n, int64_t k) {
  Product x{.op = "gemm", .a = g.a.data, .b = g.b.data, .out = g.out.data, .rows = g.a.dim(0), .n = n, .k = k};
  const GroupedParams p = dense(x.rows);
  if (g.residual) {
    x.hidden = g.residual.data;
    launch_product<GroupedConfig<GemmType::bf16, Epilogue::residual, b_mn_major>>(stream, x, p);
  } else if (narrow_tiles(x, p)) {
    launch_product<GroupedConfig<GemmType::bf16, Epilogue::none, b_mn_major, 192>>(stream, x, p);
  } else {
    launch_product<GroupedConfig<GemmType::bf16, Epilogue::none, b_mn_major>>(stream, x, p);
  }
}

}  // namespace

void gemm(cudaStream_t stream, const GemmArgs& g, Workspace workspace) {
  ASSAY_OP_CHECK("gemm", g.a.dtype == DType::bf16 && g.b.dtype == DType::bf16,
                 "CUDA products take bf16, got " + g.a.describe() + " and " + g.b.describe());
  if (g.transpose_a) {
    ASSAY_OP_CHECK("gemm", !g.transpose_b && g.out.dtype == DType::f32 && !g.residual && g.a.dim(0) == g.b.dim(0),
                   "a^T * b is a weight gradient in f32, got " + g.a.describe() + ", " + g.b.describe() + " -> " +
                       g.out.describe());
    const WeightGradient x{"gemm", g.a.data, g.b.data, g.a.dim(0), g.a.dim(1), g.b.dim(1), g.a.dim(0)};
    WgradParams p{};
    p.groups = 1;
    p.group_rows = static_cast<int>(x.rows);
    p.accumulate = g.accumulate;
    p.dw = g.out.as<float>();
    bf16_weight_gradient(stream, x, p, workspace);
    return;
  }
  ASSAY_OP_CHECK("gemm", g.out.dtype == DType::bf16 && !g.accumulate,
                 "a * b goes to bf16 without accumulation, got " + g.out.describe());
  const int64_t k = g.a.dim(1), n = g.transpose_b ? g.b.dim(0) : g.b.dim(1);
  ASSAY_OP_CHECK("gemm",
                 (g.transpose_b ? g.b.dim(1) : g.b.dim(0)) == k && g.out.dim(0) == g.a.dim(0) && g.out.dim(1) == n,
                 g.a.describe() + " x " + g.b.describe() + " -> " + g.out.describe());
  if (g.transpose_b)
    product_bf16<false>(stream, g, n, k);
  else
    product_bf16<true>(stream, g, n, k);
}

}  // namespace assay::cuda
