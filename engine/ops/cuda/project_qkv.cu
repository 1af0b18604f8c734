// The packed projection with QK-norm + RoPE: in the product's epilogue where there is a kernel for it, else op by op.
#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/grouped_launch.cuh"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rope.cuh"

namespace assay::cuda {
namespace {

constexpr const char* op = "project_qkv";

bool fused(const ProjectQkvArgs& a) {
  const Tensor& qkv = a.rope.qkv;
  if (qkv.dtype != DType::bf16 || qkv.dim(3) != rope_head) return false;
  if (!a.w8) return a.x.dtype == DType::bf16 && a.w.dtype == DType::bf16;
  return a.x8.codes.dtype == DType::fp8_e4m3 && a.w8.codes.dtype == DType::fp8_e4m3 &&
         a.x8.mode == ScaleMode::tensorwise && a.w8.mode == ScaleMode::tensorwise;
}

void one_by_one(cudaStream_t stream, const ProjectQkvArgs& a, const Tensor& out, Workspace workspace,
                const Tiling& tiling) {
  if (a.w8)
    gemm_fp8(stream, {.a = a.x8, .b = a.w8, .out = out}, workspace);
  else
    gemm(stream, {.a = a.x, .b = a.w, .out = out}, workspace);
  qk_norm_rope(stream, a.rope, tiling);
}

void product(cudaStream_t stream, const ProjectQkvArgs& a, const RopeShape& s, const Tensor& out) {
  const Tensor &x = a.w8 ? a.x8.codes : a.x, &w = a.w8 ? a.w8.codes : a.w;
  const int64_t rows = out.dim(0), n = out.dim(1);
  ASSAY_OP_CHECK(
      op, x.rank == 2 && w.rank == 2 && x.dim(0) == rows && w.dim(0) == n && w.dim(1) == x.dim(1) && s.T <= INT32_MAX,
      x.describe() + " x " + w.describe() + "^T -> " + out.describe());
  const int64_t k = x.dim(1);
  const Product product{.op = op, .a = x.data, .b = w.data, .out = out.data, .rows = rows, .n = n, .k = k};
  GroupedParams p{};
  p.groups = 1;
  p.group_rows = static_cast<int>(rows);
  p.rope = {a.rope.cos.as<float>(), a.rope.sin.as<float>(), a.rope.rstd.as<float>(), static_cast<int>(s.T), 2 * s.H};
  if (!a.w8) return bf16_qkv_product(stream, product, p);
  cpu::check_quantized(op, "x8", a.x8, 1, rows, k);
  cpu::check_quantized(op, "w8", a.w8, 1, n, k);
  p.a_scale = a.x8.scales.as<float>();
  p.b_scale = a.w8.scales.as<float>();
  fp8_qkv_product(stream, product, p);
}

}  // namespace

void project_qkv(cudaStream_t stream, const ProjectQkvArgs& a, Workspace workspace, const Tiling& tiling) {
  const QkNormRopeArgs& rope = a.rope;
  const RopeShape s = check_rope(op, rope, rope.qkv);
  const Tensor out = rope.qkv.view({s.N, 3 * s.H * rope.qkv.dim(3)});
  if (!fused(a)) return one_by_one(stream, a, out, workspace, tiling);
  product(stream, a, s, out);
  if (rope.ve_table) add_value_embeddings(stream, rope, tiling);
}

}  // namespace assay::cuda
