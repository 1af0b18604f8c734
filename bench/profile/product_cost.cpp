// Ops bound by arithmetic. Ceilings: measured on one H100 80GB HBM3, docs/benchmarks.md.
#include <algorithm>

#include "profile/op_cost.h"

namespace assay::bench {
namespace {

constexpr double bf16_ceiling = 710e12;
constexpr double fp8_ceiling = 1350e12;
constexpr double attention_ceiling = 556e12;
constexpr double attention_grad_ceiling = 490e12;

double d(int64_t n) {
  return static_cast<double>(n);
}

bool is_fp8(DType t) {
  return t == DType::fp8_e4m3 || t == DType::fp8_e5m2;
}

std::string sizes(std::initializer_list<int64_t> dims) {
  std::string text;
  for (int64_t n : dims) text += (text.empty() ? "" : "x") + std::to_string(n);
  return text;
}

OpCost product(const char* op, const std::string& shape, DType operand, double flops) {
  const bool fp8 = is_fp8(operand);
  return {.op = op,
          .shape = shape + " " + to_string(operand),
          .family = Family::product,
          .flops = flops,
          .ceiling = fp8 ? fp8_ceiling : bf16_ceiling,
          .ceiling_name = fp8 ? "FP8 GEMM" : "BF16 GEMM"};
}

// Scores that a causal window leaves, over all heads and sequences.
double score_pairs(const Tensor& qkv, int64_t B, int64_t T, int64_t window) {
  const double w = d(std::min(window, T));
  return d(B * qkv.dim(2)) * (d(T) * w - w * (w - 1) / 2);
}

OpCost attention(const char* op, const Tensor& qkv, int64_t B, int64_t T, int64_t window, double products,
                 double ceiling) {
  return {.op = op,
          .shape = "B" + std::to_string(B) + " T" + std::to_string(T) + " H" + std::to_string(qkv.dim(2)) + " D" +
                   std::to_string(qkv.dim(3)) + " window " + std::to_string(window),
          .family = Family::attention,
          .flops = score_pairs(qkv, B, T, window) * 2 * products * d(qkv.dim(3)),
          .ceiling = ceiling,
          .ceiling_name = "attention"};
}

// What a grouped product writes, in words.
std::string output_of(const GroupedGemmArgs& a) {
  const std::string epilogue = a.epilogue == GroupedEpilogue::relu2        ? " relu2"
                               : a.epilogue == GroupedEpilogue::relu2_grad ? " relu2_grad"
                                                                           : "";
  if (!a.out8) return epilogue + " -> " + to_string(a.out.dtype);
  return epilogue + " -> " + to_string(a.out8.codes.dtype) + (a.out8t ? " twice" : "");
}

}  // namespace

OpCost cost_of(const GemmArgs& a, const CostContext&) {
  const int64_t m = a.out.dim(0), n = a.out.dim(1), k = a.a.dim(a.transpose_a ? 0 : 1);
  const char* kind = a.transpose_a ? " wgrad" : a.transpose_b ? "" : " dgrad";
  return product("gemm", sizes({m, n, k}) + kind + (a.residual ? " +residual" : ""), a.a.dtype, 2 * d(m) * d(n) * d(k));
}

OpCost cost_of(const GemmFp8Args& a, const CostContext&) {
  const int64_t m = a.out.dim(0), n = a.out.dim(1), k = a.a.codes.dim(1);
  const char* kind = a.out.dtype == DType::f32 ? " wgrad" : "";
  return product("gemm_fp8", sizes({m, n, k}) + kind + (a.residual ? " +residual" : ""), a.a.codes.dtype,
                 2 * d(m) * d(n) * d(k));
}

OpCost cost_of(const ProjectQkvArgs& a, const CostContext&) {
  const Tensor& x = a.w8 ? a.x8.codes : a.x;
  const int64_t m = x.dim(0), n = a.rope.qkv.numel() / m, k = x.dim(1);
  return product("project_qkv", sizes({m, n, k}) + (a.rope.ve_table ? " +ve" : ""), x.dtype, 2 * d(m) * d(n) * d(k));
}

OpCost cost_of(const GroupedGemmArgs& a, const CostContext& c) {
  const Tensor& x = a.x8 ? a.x8.codes : a.x;
  const Tensor& w = a.x8 ? a.w8.codes : a.w;
  const int64_t rows = a.groups.start != nullptr ? std::min(c.routed_rows, x.dim(0)) : x.dim(0);
  const int64_t k = x.dim(1), n = w.numel() / w.dim(0) / k;
  return product("grouped_gemm", std::to_string(a.groups.count) + "g " + sizes({rows, n, k}) + output_of(a), x.dtype,
                 2 * d(rows) * d(n) * d(k));
}

OpCost cost_of(const GroupedWgradArgs& a, const CostContext& c) {
  const Tensor& dy = a.dy8t ? a.dy8t.codes : a.dy;
  const int64_t all = dy.dim(a.dy8t ? 1 : 0);
  const int64_t rows = a.groups.start != nullptr ? std::min(c.routed_rows, all) : all;
  const int64_t n = a.dw.dim(1), k = a.dw.dim(2);
  return product("grouped_wgrad", std::to_string(a.groups.count) + "g " + sizes({rows, n, k}), dy.dtype,
                 2 * d(rows) * d(n) * d(k));
}

OpCost cost_of(const AttentionArgs& a, const CostContext&) {
  return attention("attention", a.qkv, a.B, a.T, a.window, 2, attention_ceiling);
}

OpCost cost_of(const AttentionGradArgs& a, const CostContext&) {
  return attention("attention_grad", a.qkv, a.B, a.T, a.window, 5, attention_grad_ceiling);
}

// Five iterations of X^T X, its square, and X times a polynomial of it: counted in full, although two of the three are
// symmetric.
OpCost cost_of(const MuonArgs& a, const CostContext&) {
  int64_t matrices = 0;
  for (const MuonStack& s : a.stacks) matrices += s.param.dim(0);
  const Tensor& p = a.stacks.front().param;
  const double small = d(std::min(p.dim(1), p.dim(2))), large = d(std::max(p.dim(1), p.dim(2)));
  const double flops = 5 * (4 * large * small * small + 2 * small * small * small);
  return {.op = "muon",
          .shape = std::to_string(matrices) + " of " + sizes({p.dim(1), p.dim(2)}),
          .family = Family::optimizer,
          .flops = flops * d(matrices),
          .ceiling = bf16_ceiling,
          .ceiling_name = "BF16 GEMM"};
}

}  // namespace assay::bench
