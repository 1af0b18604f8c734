#include "engine/plan/parameters.h"

#include <algorithm>

namespace assay {
namespace {

void list_layer(const RunConfig& config, const ModelShape& s, int64_t i, std::vector<ParameterSpec>& out) {
  const auto add = [&](const char* what, ParameterKind kind, int64_t groups, int64_t rows, int64_t cols,
                       bool routed = false) {
    out.push_back({layer_name(i, what), kind, i, groups, rows, cols, routed});
  };
  add("wqkv", ParameterKind::qkv, 3, s.d, s.d);
  add("wo", ParameterKind::attention_output, 1, s.d, s.d);
  if (has_value_embedding(config.model, static_cast<int>(i))) {
    add("value_embedding", ParameterKind::value_embedding, 1, s.vocab, s.d);
    add("ve_gate", ParameterKind::ve_gate, 1, s.heads, ve_gate_channels);
  }
  add("router", ParameterKind::router, 1, s.experts, s.d);
  add("w1", ParameterKind::expert_up, s.experts, s.h, s.d, true);
  add("w2", ParameterKind::expert_down, s.experts, s.d, s.h, true);
  add("w1_shared", ParameterKind::expert_up, 1, s.h, s.d);
  add("w2_shared", ParameterKind::expert_down, 1, s.d, s.h);
}

}  // namespace

std::vector<ParameterSpec> list_parameters(const RunConfig& config) {
  const ModelShape s = model_shape(config);
  std::vector<ParameterSpec> out;
  out.push_back({"wte", ParameterKind::token_embedding, -1, 1, s.vocab, s.d});
  if (config.model.residual_lambdas) {
    out.push_back({"resid_lambdas", ParameterKind::resid_lambda, -1, 1, 1, s.layers});
    out.push_back({"x0_lambdas", ParameterKind::x0_lambda, -1, 1, 1, s.layers});
  }
  for (int64_t i = 0; i < s.layers; ++i) list_layer(config, s, i, out);
  out.push_back({"lm_head", ParameterKind::lm_head, -1, 1, s.vocab, s.d});
  return out;
}

bool is_gemm_weight(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::qkv:
    case ParameterKind::attention_output:
    case ParameterKind::expert_up:
    case ParameterKind::expert_down:
    case ParameterKind::lm_head:
      return true;
    default:
      return false;
  }
}

bool weight_is_fp8(const ModelShape& s, const ParameterSpec& p) {
  if (!is_gemm_weight(p.kind)) return false;
  if (p.kind == ParameterKind::lm_head) return s.head_fp8;
  return p.routed ? s.routed_fp8 : s.dense_fp8;
}

bool is_muon(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::token_embedding:
    case ParameterKind::value_embedding:
    case ParameterKind::lm_head:
    case ParameterKind::resid_lambda:
    case ParameterKind::x0_lambda:
      return false;
    default:
      return true;
  }
}

int64_t second_moment_count(const ParameterSpec& p) {
  return is_muon(p.kind) ? p.groups * std::max(p.rows, p.cols) : p.numel();
}

int64_t count_parameters(const RunConfig& config) {
  int64_t total = 0;
  for (const ParameterSpec& p : list_parameters(config)) total += p.numel();
  return total;
}

int64_t count_active_matmul_parameters(const RunConfig& config) {
  int64_t active = 0;
  for (const ParameterSpec& p : list_parameters(config)) {
    const bool looked_up = p.kind == ParameterKind::token_embedding || p.kind == ParameterKind::value_embedding;
    const bool scalar = p.kind == ParameterKind::resid_lambda || p.kind == ParameterKind::x0_lambda;
    if (looked_up || scalar) continue;
    active += p.routed ? config.model.top_k * p.rows * p.cols : p.numel();
  }
  return active;
}

double flops_per_token(const RunConfig& config) {
  const ModelShape s = model_shape(config);
  double flops = 6.0 * static_cast<double>(count_active_matmul_parameters(config));
  for (int64_t i = 0; i < s.layers; ++i) {
    const int64_t window = std::min<int64_t>(attention_window(config.model, static_cast<int>(i)), s.T);
    flops += 12.0 * static_cast<double>(s.d) * static_cast<double>(window);
  }
  return flops;
}

}  // namespace assay
