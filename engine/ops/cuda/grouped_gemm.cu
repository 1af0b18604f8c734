#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/grouped_launch.cuh"

namespace assay::cuda {
namespace {

// gate_grad[r] = sum of the tiles' partial sums / gate[r]: the products were made from the gated gradient.
__global__ void finish_gate_grad(const float* partial, const float* gate, float* gate_grad, int64_t rows, int parts) {
  const int64_t r = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (r >= rows) return;
  float sum = 0;
  for (int i = 0; i < parts; ++i) sum += partial[r * parts + i];
  gate_grad[r] = gate[r] > 0 ? sum / gate[r] : 0.0f;
}

void check(const GroupedGemmArgs& g) {
  const char* op = "grouped_gemm";
  const Tensor& x = g.x8 ? g.x8.codes : g.x;
  const Tensor& w = g.w8 ? g.w8.codes : g.w;
  ASSAY_OP_CHECK(op, w.rank == 3 && w.dim(0) == g.groups.count, "one weight matrix per group, got " + w.describe());
  ASSAY_OP_CHECK(op, g.out.dtype == DType::bf16, "out is bf16, got " + g.out.describe());
  ASSAY_OP_CHECK(op, g.x8 || (g.x.dtype == DType::bf16 && g.w.dtype == DType::bf16),
                 "operands are bf16 or FP8, got " + x.describe() + " and " + w.describe());
  ASSAY_OP_CHECK(op, !g.x8 || (g.x8.mode == ScaleMode::tensorwise && g.w8.mode == ScaleMode::tensorwise),
                 "CUDA products take tensorwise scales");
  if (g.epilogue != GroupedEpilogue::relu2_grad) return;
  ASSAY_OP_CHECK(op, g.hidden.dtype == DType::bf16 && g.out.dim(1) % 256 == 0,
                 "the relu^2 gradient takes bf16 hidden of a multiple of 256 columns, got " + g.hidden.describe());
}

template <Epilogue epilogue>
void launch(cudaStream_t stream, const GroupedGemmArgs& g, const Product& x, const GroupedParams& p) {
  if (g.x8)
    launch_fp8_product<OutType::bf16, epilogue>(stream, g.x8.codes.dtype, x, p);
  else if (g.transpose_w)
    launch_product<GroupedConfig<GemmType::bf16, OutType::bf16, epilogue, false, true>>(stream, x, p);
  else
    launch_product<GroupedConfig<GemmType::bf16, OutType::bf16, epilogue>>(stream, x, p);
}

}  // namespace

void grouped_gemm(cudaStream_t stream, const GroupedGemmArgs& g, Workspace workspace) {
  check(g);
  const Tensor& in = g.x8 ? g.x8.codes : g.x;
  Product x{.op = "grouped_gemm",
            .a = in.data,
            .b = g.w8 ? g.w8.codes.data : g.w.data,
            .out = g.out.data,
            .hidden = g.hidden.data,
            .rows = in.dim(0),
            .n = g.out.dim(1),
            .k = in.dim(1)};
  GroupedParams p{};
  p.start = g.groups.start;
  p.rows = g.groups.rows;
  p.groups = g.groups.count;
  if (g.x8) {
    p.a_scale = g.x8.scales.as<float>();
    p.b_scale = g.w8.scales.as<float>();
  }
  switch (g.epilogue) {
    case GroupedEpilogue::none:
      return launch<Epilogue::none>(stream, g, x, p);
    case GroupedEpilogue::relu2:
      return launch<Epilogue::relu2>(stream, g, x, p);
    case GroupedEpilogue::relu2_grad:
      break;
  }
  const int parts = static_cast<int>(x.n / 256);
  p.gate_partial = workspace.take<float>("grouped_gemm", x.rows * parts);
  launch<Epilogue::relu2_grad>(stream, g, x, p);
  finish_gate_grad<<<static_cast<unsigned>((x.rows + 255) / 256), 256, 0, stream>>>(
      p.gate_partial, g.gate.as<float>(), g.gate_grad.as<float>(), x.rows, parts);
  ASSAY_CUDA_LAUNCHED("grouped_gemm", describe(x.rows, x.n, x.k));
}

}  // namespace assay::cuda
