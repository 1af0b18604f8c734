#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/grouped_launch.cuh"
#include "engine/ops/lowp.h"

namespace assay::cuda {
namespace {

constexpr const char* op = "grouped_gemm";

// gate_grad[r] = sum of the tiles' partial sums / gate[r]: the products were made from the gated gradient.
__global__ void finish_gate_grad(const float* partial, const float* gate, float* gate_grad, int64_t rows, int parts) {
  const int64_t r = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (r >= rows) return;
  float sum = 0;
  for (int i = 0; i < parts; ++i) sum += partial[r * parts + i];
  gate_grad[r] = gate[r] != 0 ? sum / gate[r] : 0.0f;
}

// The scale of the codes: the slot's, or where there is none yet the one that this call's amax gives (as quantize
// does).
__global__ void choose_scale(const float* slot, const float* amax, float format_max, float* scale) {
  const float own = *amax / format_max;
  *scale = *slot > 0 ? *slot : isfinite(1.0f / own) || isnan(own) ? own : 1.0f;
}

struct Shape {
  int64_t rows, E, n, k;
};

// Columns of a tile of the gradient of relu^2. In BF16 the tile of `hidden` and of out takes so much memory that tiles
// of 128 columns, with six stages instead of three, are 10 % faster (measured); codes are half as wide.
constexpr int grad_columns_bf16 = 128, grad_columns_fp8 = 256;

void check_codes(const GroupedGemmArgs& g, const Shape& s) {
  ASSAY_OP_CHECK(op, g.x8 && !g.out && g.out8 && g.epilogue != GroupedEpilogue::none,
                 "CUDA products make codes from FP8 operands, through relu^2 or its gradient, and out8t beside out8");
  const DType format = g.epilogue == GroupedEpilogue::relu2 ? DType::fp8_e4m3 : g.x8.codes.dtype;
  ASSAY_OP_CHECK(op, g.x8.codes.dtype == format && g.out8.codes.dtype == format,
                 "x8 and out8 are both " + std::string(to_string(format)) + ", got " + g.x8.codes.describe() + " and " +
                     g.out8.codes.describe());
  ASSAY_OP_CHECK(op, g.out8_scale.scale != nullptr && g.out8_scale.amax != nullptr, "FP8 outputs need out8_scale");
  cpu::check_quantized(op, "out8", g.out8, 1, s.rows, s.n);
  if (!g.out8t) return;
  cpu::check_quantized(op, "out8t", g.out8t, 1, s.n, s.rows);
  ASSAY_OP_CHECK(op, g.out8t.codes.dtype == format, "out8t is not a copy of out8 but " + g.out8t.codes.describe());
}

void check_hidden(const GroupedGemmArgs& g, const Shape& s) {
  if (g.out8) {
    cpu::check_quantized(op, "hidden8", g.hidden8, 1, s.rows, s.n);
    ASSAY_OP_CHECK(op, g.hidden8.codes.dtype == DType::fp8_e4m3 && g.hidden8.mode == ScaleMode::tensorwise,
                   "hidden8 is tensorwise e4m3, got " + g.hidden8.codes.describe());
  } else {
    cpu::check_tensor(op, "hidden", g.hidden, DType::bf16, {s.rows, s.n});
  }
  ASSAY_OP_CHECK(op, static_cast<bool>(g.gate) == static_cast<bool>(g.gate_grad),
                 "gate and gate_grad go together, got " + g.gate.describe() + " and " + g.gate_grad.describe());
  if (!g.gate) return;
  cpu::check_tensor(op, "gate", g.gate, DType::f32, {s.rows});
  cpu::check_tensor(op, "gate_grad", g.gate_grad, DType::f32, {s.rows});
}

Shape check(const GroupedGemmArgs& g) {
  const Tensor& x = g.x8 ? g.x8.codes : g.x;
  const Tensor& w = g.x8 ? g.w8.codes : g.w;
  ASSAY_OP_CHECK(op, x.rank == 2 && w.rank == 3,
                 "x " + x.describe() + ", w " + w.describe() + " are not [R, K] and [E, ., .]");
  const bool transposed = g.transpose_w && !g.x8;
  const Shape s{x.dim(0), w.dim(0), w.dim(transposed ? 2 : 1), w.dim(transposed ? 1 : 2)};
  ASSAY_OP_CHECK(op, g.groups.start != nullptr ? g.groups.count == s.E : s.E == 1,
                 std::to_string(g.groups.count) + " groups for weights " + w.describe());
  ASSAY_CUDA_TAKES(op, cuda_limits, experts, s.E);
  if (g.x8) {
    cpu::check_quantized(op, "x8", g.x8, 1, s.rows, s.k);
    cpu::check_quantized(op, "w8", g.w8, s.E, s.n, s.k);
    ASSAY_OP_CHECK(op, w.dtype == DType::fp8_e4m3, "w8 is e4m3, got " + w.describe());
    ASSAY_OP_CHECK(op, scales_of(op, g.x8, g.w8) == Scales::tensorwise || !(g.out8 || g.out8t),
                   std::string("products into codes take tensorwise scales, got ") + to_string(g.x8.mode));
  } else {
    cpu::check_tensor(op, "x", x, DType::bf16, {s.rows, s.k});
    cpu::check_tensor(op, "w", w, DType::bf16, {w.numel()});
  }
  if (g.out8 || g.out8t)
    check_codes(g, s);
  else
    cpu::check_tensor(op, "out", g.out, DType::bf16, {s.rows, s.n});
  if (g.epilogue == GroupedEpilogue::relu2_grad) check_hidden(g, s);
  return s;
}

void launch_bf16(cudaStream_t stream, const GroupedGemmArgs& g, const Product& x, const GroupedParams& p) {
  constexpr GemmType type = GemmType::bf16;
  switch (g.epilogue) {
    case GroupedEpilogue::none:
      if (g.transpose_w) return launch_product<GroupedConfig<type, Epilogue::none, true>>(stream, x, p);
      return launch_product<GroupedConfig<type, Epilogue::none>>(stream, x, p);
    case GroupedEpilogue::relu2:
      ASSAY_OP_CHECK(op, !g.transpose_w, "relu^2 takes w [E, N, K] on CUDA");
      return launch_product<GroupedConfig<type, Epilogue::relu2>>(stream, x, p);
    case GroupedEpilogue::relu2_grad:
      ASSAY_OP_CHECK(op, g.transpose_w, "the gradient of relu^2 takes w [E, K, N] on CUDA");
      return launch_product<GroupedConfig<type, Epilogue::relu2_grad, true, grad_columns_bf16>>(stream, x, p);
  }
}

void launch_fp8(cudaStream_t stream, const GroupedGemmArgs& g, const Product& x, const GroupedParams& p) {
  const DType a = g.x8.codes.dtype;
  const bool grad = g.epilogue == GroupedEpilogue::relu2_grad;
  if (g.out8) return grad ? fp8_relu2_grad_codes(stream, a, x, p) : fp8_relu2_codes(stream, x, p);
  const Epilogue epilogue = grad                                   ? Epilogue::relu2_grad
                            : g.epilogue == GroupedEpilogue::relu2 ? Epilogue::relu2
                                                                   : Epilogue::none;
  const Scales scales = scales_of(op, g.x8, g.w8);
  if (scales != Scales::tensorwise) return fp8_scaled_product(stream, scales, epilogue, a, x, p);
  fp8_product(stream, epilogue, a, x, p);
}

// The product once for its amax alone (its codes are overwritten), then with the scale that follows.
void launch_calibrating(cudaStream_t stream, const GroupedGemmArgs& g, const Product& x, GroupedParams p,
                        Workspace& workspace) {
  float* cells = workspace.take<float>(op, 2);  // amax, scale
  ASSAY_CUDA_CHECK(op, cudaMemsetAsync(cells, 0, 2 * sizeof(float), stream));
  float* amax = p.out_amax;
  p.out_amax = cells;
  launch_fp8(stream, g, x, p);
  choose_scale<<<1, 1, 0, stream>>>(g.out8_scale.scale, cells, fp8_max(g.out8.codes.dtype), cells + 1);
  ASSAY_CUDA_LAUNCHED(op, g.out8.codes.describe());
  p.out_amax = amax;
  p.out_scale = cells + 1;
  launch_fp8(stream, g, x, p);
}

}  // namespace

void grouped_gemm(cudaStream_t stream, const GroupedGemmArgs& g, Workspace workspace) {
  const Shape s = check(g);
  const Product x{.op = op,
                  .a = g.x8 ? g.x8.codes.data : g.x.data,
                  .b = g.x8 ? g.w8.codes.data : g.w.data,
                  .out = g.out8 ? g.out8.codes.data : g.out.data,
                  .hidden = g.out8 ? g.hidden8.codes.data : g.hidden.data,
                  .transposed = g.out8t.codes.data,
                  .rows = s.rows,
                  .n = s.n,
                  .k = s.k};
  GroupedParams p{};
  p.start = g.groups.start;
  p.rows = g.groups.rows;
  p.groups = static_cast<int>(s.E);
  p.group_rows = static_cast<int>(s.rows);
  p.a_scale = g.x8.scales.as<float>();
  p.b_scale = g.w8.scales.as<float>();
  p.hidden_scale = g.hidden8.scales.as<float>();
  p.out_scale = g.out8_scale.scale;
  p.out_amax = g.out8_scale.amax;
  p.used_scale = g.out8.scales.as<float>();
  p.used_scale_t = g.out8t.scales.as<float>();
  const int tile_columns = !g.x8                                ? grad_columns_bf16
                           : g.x8.mode == ScaleMode::tensorwise ? grad_columns_fp8
                                                                : scaled_hidden_columns;
  const int parts = static_cast<int>((s.n + tile_columns - 1) / tile_columns);
  if (g.gate && g.epilogue == GroupedEpilogue::relu2_grad)
    p.gate_partial = workspace.take<float>(op, (s.rows + tile_m - 1) / tile_m * tile_m * parts);
  if (!g.x8)
    launch_bf16(stream, g, x, p);
  else if (g.out8 && g.calibrate)
    launch_calibrating(stream, g, x, p, workspace);
  else
    launch_fp8(stream, g, x, p);
  if (p.gate_partial == nullptr) return;
  finish_gate_grad<<<static_cast<unsigned>((s.rows + 255) / 256), 256, 0, stream>>>(
      p.gate_partial, g.gate.as<float>(), g.gate_grad.as<float>(), s.rows, parts);
  ASSAY_CUDA_LAUNCHED(op, describe(s.rows, s.n, s.k));
}

}  // namespace assay::cuda
