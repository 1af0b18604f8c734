#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {

void grouped_wgrad(cudaStream_t stream, const GroupedWgradArgs& g, Workspace workspace) {
  const char* op = "grouped_wgrad";
  WgradParams p{};
  p.start = g.groups.start;
  p.rows = g.groups.rows;
  p.groups = g.groups.count;
  p.accumulate = true;
  p.dw = g.dw.as<float>();
  ASSAY_OP_CHECK(op, g.dw.dtype == DType::f32 && g.dw.rank == 3, "dw is f32 [E, N, K], got " + g.dw.describe());
  ASSAY_OP_CHECK(op, !g.dy8, "FP8 operands must be transposed copies");
  ASSAY_OP_CHECK(op, g.dy.dtype == DType::bf16 && g.x.dtype == DType::bf16 && g.dy.dim(0) == g.x.dim(0),
                 "operands are bf16, got " + g.dy.describe() + " and " + g.x.describe());
  const int64_t rows = g.dy.dim(0);
  const WeightGradient x{op, g.dy.data, g.x.data, rows, g.dw.dim(1), g.dw.dim(2), rows / g.groups.count};
  launch_wgrad<WgradConfig<GemmType::bf16, 256, 4>>(stream, x, p, workspace);
}

}  // namespace assay::cuda
