#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

void check_fp8(const GroupedWgradArgs& g, int64_t rows) {
  const char* op = "grouped_wgrad";
  cpu::check_quantized(op, "dy8t", g.dy8t, 1, g.dw.dim(1), rows);
  cpu::check_quantized(op, "x8t", g.x8t, 1, g.dw.dim(2), rows);
  ASSAY_OP_CHECK(op, g.dy8t.mode == ScaleMode::tensorwise && g.x8t.mode == ScaleMode::tensorwise,
                 "CUDA products take tensorwise scales");
  ASSAY_OP_CHECK(op, g.x8t.codes.dtype == DType::fp8_e4m3, "x8t is e4m3, got " + g.x8t.codes.describe());
}

}  // namespace

void grouped_wgrad(cudaStream_t stream, const GroupedWgradArgs& g, Workspace workspace) {
  const char* op = "grouped_wgrad";
  const Tensor& dy = g.dy8t ? g.dy8t.codes : g.dy;
  ASSAY_OP_CHECK(op, dy.rank == 2 && g.dw.rank == 3 && g.dw.dtype == DType::f32,
                 "dw is f32 [E, N, K], got " + g.dw.describe() + "; dy is of rank 2, got " + dy.describe());
  const int64_t rows = dy.dim(g.dy8t ? 1 : 0), E = g.dw.dim(0);
  ASSAY_OP_CHECK(op, g.groups.start != nullptr ? g.groups.count == E : E == 1,
                 std::to_string(g.groups.count) + " groups for " + g.dw.describe());
  WgradParams p{};
  p.start = g.groups.start;
  p.rows = g.groups.rows;
  p.groups = static_cast<int>(E);
  p.group_rows = static_cast<int>(rows);
  p.accumulate = g.accumulate;
  p.dw = g.dw.as<float>();
  WeightGradient x{op, dy.data, g.x.data, rows, g.dw.dim(1), g.dw.dim(2), rows / E};
  if (g.dy8t) {
    check_fp8(g, rows);
    x.b = g.x8t.codes.data;
    p.a_scale = g.dy8t.scales.as<float>();
    p.b_scale = g.x8t.scales.as<float>();
    return fp8_weight_gradient(stream, dy.dtype, x, p, workspace);
  }
  cpu::check_tensor(op, "dy", g.dy, DType::bf16, {rows, g.dw.dim(1)});
  cpu::check_tensor(op, "x", g.x, DType::bf16, {rows, g.dw.dim(2)});
  bf16_weight_gradient(stream, x, p, workspace);
}

}  // namespace assay::cuda
