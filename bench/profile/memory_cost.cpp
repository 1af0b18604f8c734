// Ops bound by memory: every operand is read or written once (twice where it is both); what a cache may keep, such as
// tables of angles, is not counted. Ceiling: a copy on one H100 80GB HBM3, docs/benchmarks.md.
#include <algorithm>

#include "profile/op_cost.h"

namespace assay::bench {
namespace {

constexpr double copy_ceiling = 3.0e12;

double bytes_of(const Tensor& t) {
  return t ? static_cast<double>(t.bytes()) : 0;
}
double bytes_of(const Quantized& q) {
  return bytes_of(q.codes) + bytes_of(q.scales);
}
template <class... T>
double sum_of(const T&... operands) {
  return (bytes_of(operands) + ... + 0.0);
}

OpCost memory(const char* op, const std::string& shape, double bytes, Family family = Family::memory) {
  return {.op = op, .shape = shape, .family = family, .bytes = bytes, .ceiling = copy_ceiling, .ceiling_name = "copy"};
}

// Rows of a table that N tokens can touch.
double touched(const Tensor& table, const Tensor& tokens) {
  return static_cast<double>(std::min(table.dim(0), tokens.numel()) * table.dim(1)) *
         static_cast<double>(size_of(table.dtype));
}

std::string with(const Tensor& t, bool extra, const char* what) {
  return t.describe() + (extra ? what : "");
}

}  // namespace

const char* to_string(Family f) {
  switch (f) {
    case Family::product:
      return "matrix products";
    case Family::attention:
      return "attention";
    case Family::memory:
      return "memory-bound";
    case Family::optimizer:
      return "optimizer";
  }
  return "";
}

OpCost cost_of(const EmbedNormArgs& a, const CostContext&) {
  const auto rows = static_cast<double>(a.x.numel()) * static_cast<double>(size_of(a.table.dtype));
  return memory("embed_norm", a.x.describe(), rows + sum_of(a.tokens, a.x, a.rstd));
}

OpCost cost_of(const EmbedNormGradArgs& a, const CostContext&) {
  return memory("embed_norm_grad", a.x.describe(),
                sum_of(a.tokens, a.x, a.rstd, a.dx) + 2 * touched(a.table_grad, a.tokens));
}

OpCost cost_of(const EmbedGradArgs& a, const CostContext&) {
  return memory("embed_grad", a.dy.describe(), sum_of(a.tokens, a.dy) + 2 * touched(a.table_grad, a.tokens));
}

OpCost cost_of(const MixNormArgs& a, const CostContext&) {
  const std::string shape =
      with(a.n, static_cast<bool>(a.resid_lambda), " lambdas") + (a.add ? " +experts" : "") + (a.n8 ? " +fp8" : "");
  const double row = a.add ? bytes_of(a.x_in) / static_cast<double>(a.x_in.dim(0)) : 0;
  const double experts =
      a.add ? static_cast<double>(a.add.slot.numel()) * row + sum_of(a.add.slot, a.add.weights, a.add.shared) : 0;
  return memory("mix_norm", shape, sum_of(a.x_in, a.x0, a.x, a.n, a.rstd, a.n8) + experts);
}

OpCost cost_of(const MixNormGradArgs& a, const CostContext&) {
  return memory("mix_norm_grad", with(a.n, static_cast<bool>(a.resid_lambda), " lambdas"),
                sum_of(a.dn, a.n, a.rstd, a.x0, a.dx8, a.dx8t, a.n8t) + 2 * sum_of(a.dx, a.dx0));
}

OpCost cost_of(const QuantizeArgs& a, const CostContext&) {
  const Quantized& q = a.out ? a.out : a.transposed;
  std::string shape = a.x.describe() + " -> " + to_string(q.codes.dtype);
  shape += a.out && a.transposed ? " both" : a.out ? "" : " transposed";
  if (a.delayed.scale == nullptr && a.static_scale == 0) shape += " own amax";
  return memory("quantize", shape, sum_of(a.x, a.out, a.transposed));
}

OpCost cost_of(const PrepareWeightsArgs& a, const CostContext&) {
  double bytes = 0;
  size_t copies = 0;
  for (const WeightForms& w : a.weights) {
    bytes += sum_of(w.x, w.out, w.transposed, w.copy);
    if (w.copy) ++copies;
  }
  return memory("prepare_weights",
                std::to_string(a.weights.size() - copies) + " to codes, " + std::to_string(copies) + " copied", bytes);
}

OpCost cost_of(const ScaleUpdateArgs& a, const CostContext&) {
  return memory("scale_update", std::to_string(a.n), static_cast<double>(a.n) * 20);
}

// q and k are rotated in place; v is touched only where a value embedding is added.
OpCost cost_of(const QkNormRopeArgs& a, const CostContext&) {
  const double part = bytes_of(a.qkv) / 3;
  const double ve = a.ve_table ? 2 * part + touched(a.ve_table, a.tokens) : 0;
  return memory("qk_norm_rope", with(a.qkv, static_cast<bool>(a.ve_table), " +ve"), 4 * part + bytes_of(a.rstd) + ve);
}

OpCost cost_of(const QkNormRopeGradArgs& a, const CostContext&) {
  const double part = bytes_of(a.qkv) / 3;
  const double ve = a.ve_table ? part + touched(a.ve_table, a.tokens) + 2 * touched(a.ve_table_grad, a.tokens) : 0;
  return memory("qk_norm_rope_grad", with(a.qkv, static_cast<bool>(a.ve_table), " +ve"),
                6 * part + bytes_of(a.rstd) + ve);
}

OpCost cost_of(const NormRouteArgs& a, const CostContext&) {
  return memory("norm_route", with(a.x, static_cast<bool>(a.n8), " +fp8"),
                sum_of(a.x, a.n, a.rstd, a.n8, a.picks, a.probs, a.weights));
}

OpCost cost_of(const MoeNormGradArgs& a, const CostContext&) {
  const auto gathered = static_cast<double>(a.slot.numel() * a.dx.dim(1)) * static_cast<double>(size_of(a.dx.dtype));
  return memory("moe_norm_grad", with(a.dx, a.dx8 || a.dx8t, " +fp8"),
                gathered +
                    sum_of(a.slot, a.dn_shared, a.n, a.rstd, a.dx, a.dx8, a.dx8t, a.n8t, a.picks, a.probs, a.weights) +
                    bytes_of(a.dx));
}

OpCost cost_of(const RoutePlanArgs& a, const CostContext&) {
  return memory("route_plan", a.picks.describe(), sum_of(a.picks, a.weights, a.slot, a.token_of, a.gate_of));
}

OpCost cost_of(const RouterBiasArgs& a, const CostContext&) {
  return memory("router_bias_update", a.bias.describe(), 2 * bytes_of(a.bias) + bytes_of(a.total));
}

OpCost cost_of(const PermuteArgs& a, const CostContext&) {
  const Tensor& from = a.x8 ? a.x8.codes : a.x;
  const Tensor& to = a.out ? a.out : a.out8 ? a.out8.codes : a.out8t.codes;
  std::string shape = from.describe() + " -> " + to_string(to.dtype);
  if (!a.out) shape += a.out8 && a.out8t ? " both" : a.out8 ? "" : " transposed";
  return memory("permute", shape + (a.gate ? " gated" : ""),
                sum_of(a.token_of, a.x, a.x8, a.out, a.out8, a.out8t, a.gate, a.slot));
}

OpCost cost_of(const CombineArgs& a, const CostContext&) {
  const auto gathered = static_cast<double>(a.slot.numel() * a.y.dim(1)) * static_cast<double>(size_of(a.y.dtype));
  return memory("combine", with(a.out, static_cast<bool>(a.weights), " weighted"),
                gathered + sum_of(a.slot, a.weights, a.shared, a.residual, a.out));
}

OpCost cost_of(const Relu2Args& a, const CostContext&) {
  return memory("relu2", a.z.describe(), sum_of(a.z, a.h));
}

OpCost cost_of(const Relu2GradArgs& a, const CostContext&) {
  return memory("relu2_grad", a.dz.describe(), sum_of(a.du, a.h, a.dz, a.gate, a.gate_grad));
}

OpCost cost_of(const SoftcapXentArgs& a, const CostContext&) {
  // As codes in both orientations: written, read again and written the other way.
  const bool codes = a.grad8 && a.grad8t;
  const double gradient = codes ? 3 * bytes_of(a.grad8.codes) : bytes_of(a.logits);
  return memory("softcap_xent", a.logits.describe(),
                bytes_of(a.logits) + (a.forward_only ? 0 : gradient) + sum_of(a.targets, a.loss));
}

OpCost cost_of(const SumSquaresArgs& a, const CostContext&) {
  double bytes = 0;
  for (const Tensor& x : a.x) bytes += bytes_of(x);
  return memory("sum_squares", std::to_string(a.x.size()) + " tensors", bytes);
}

OpCost cost_of(const SumArgs& a, const CostContext&) {
  return memory("sum", a.x.describe(), bytes_of(a.x));
}

OpCost cost_of(const AddArgs& a, const CostContext&) {
  return memory("add", a.y.describe(), bytes_of(a.x) + 2 * bytes_of(a.y));
}

OpCost cost_of(const CastArgs& a, const CostContext&) {
  return memory("cast", a.x.describe() + " -> " + to_string(a.dst.dtype), sum_of(a.x, a.dst));
}

OpCost cost_of(const FillZeroArgs& a, const CostContext&) {
  return memory("fill_zero", a.x.describe(), bytes_of(a.x));
}

OpCost cost_of(const AdamWArgs& a, const CostContext&) {
  return memory("adamw", a.param.describe(), 2 * sum_of(a.param, a.m, a.v) + bytes_of(a.grad), Family::optimizer);
}

OpCost cost_of(const ExpertLoadArgs& a, const CostContext&) {
  return memory("expert_load", a.counts.describe(), bytes_of(a.counts) + 2 * sum_of(a.total, a.peak));
}

OpCost cost_of(const StepVerdictArgs& a, const CostContext&) {
  return memory("step_verdict", a.square_sums.describe(), sum_of(a.square_sums, a.peak));
}

}  // namespace assay::bench
