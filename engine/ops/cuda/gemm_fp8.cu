#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

void gemm_fp8(cudaStream_t stream, const GemmFp8Args& g, Workspace workspace) {
  const Tensor &a = g.a.codes, &b = g.b.codes;
  const Scales scales = scales_of("gemm_fp8", g.a, g.b);
  ASSAY_OP_CHECK(
      "gemm_fp8",
      a.rank == 2 && b.rank == 2 && a.dim(1) == b.dim(1) && g.out.dim(0) == a.dim(0) && g.out.dim(1) == b.dim(0),
      a.describe() + " x " + b.describe() + "^T -> " + g.out.describe());
  ASSAY_OP_CHECK("gemm_fp8", b.dtype == DType::fp8_e4m3, "b is e4m3, got " + b.describe());
  cpu::check_quantized("gemm_fp8", "a", g.a, 1, a.dim(0), a.dim(1));
  cpu::check_quantized("gemm_fp8", "b", g.b, 1, b.dim(0), b.dim(1));
  const float *a_scale = g.a.scales.as<float>(), *b_scale = g.b.scales.as<float>();
  if (g.out.dtype == DType::f32) {
    ASSAY_OP_CHECK("gemm_fp8", !g.residual, "no residual for f32");
    ASSAY_OP_CHECK(
        "gemm_fp8", scales == Scales::tensorwise,
        std::string("products into f32 (weight gradients) take tensorwise scales, got ") + to_string(g.a.mode));
    const WeightGradient x{"gemm_fp8", a.data, b.data, a.dim(1), a.dim(0), b.dim(0), a.dim(1)};
    WgradParams p{};
    p.groups = 1;
    p.group_rows = static_cast<int>(x.rows);
    p.accumulate = g.accumulate;
    p.dw = g.out.as<float>();
    p.a_scale = a_scale;
    p.b_scale = b_scale;
    (g.promote ? fp8_weight_gradient_promoted : fp8_weight_gradient)(stream, a.dtype, x, p, workspace);
    return;
  }
  ASSAY_OP_CHECK("gemm_fp8", g.out.dtype == DType::bf16 && !g.accumulate,
                 "out is bf16 or f32, got " + g.out.describe());
  Product x{
      .op = "gemm_fp8", .a = a.data, .b = b.data, .out = g.out.data, .rows = a.dim(0), .n = b.dim(0), .k = a.dim(1)};
  GroupedParams p{};
  p.groups = 1;
  p.group_rows = static_cast<int>(x.rows);
  p.a_scale = a_scale;
  p.b_scale = b_scale;
  p.alpha = p.beta = 1.0f;
  x.hidden = g.residual.data;
  ASSAY_OP_CHECK("gemm_fp8", !g.promote || !g.residual, "no promotion with a residual");
  if (g.promote && scales != Scales::blockwise) {  // blockwise sums are promoted with every block
    fp8_product_promoted(stream, scales, a.dtype, x, p);
  } else if (scales != Scales::tensorwise) {
    fp8_scaled_product(stream, scales, g.residual ? Epilogue::residual : Epilogue::none, a.dtype, x, p);
  } else if (g.residual) {
    fp8_product_residual(stream, a.dtype, x, p);
  } else {
    fp8_product(stream, Epilogue::none, a.dtype, x, p);
  }
}

}  // namespace assay::cuda
