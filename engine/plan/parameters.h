// Every parameter of the model: name, shape, and what kind it is. One list for the plan's bytes, the initialisation,
// the optimizer's groups and the checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/plan/shape.h"

namespace assay {

enum class ParameterKind {
  token_embedding,   // wte [V, d]
  value_embedding,   // [V, d]
  qkv,               // [3, d, d]: q, k and v stacked
  attention_output,  // [1, d, d]
  ve_gate,           // [1, H, 12]
  router,            // [1, E, d]
  expert_up,         // [E, h, d], or [1, h, d] for the shared expert
  expert_down,       // [E, d, h], or [1, d, h]
  lm_head,           // [V, d]
  resid_lambda,      // [L]
  x0_lambda,         // [L]
};

struct ParameterSpec {
  std::string name;  // "layer3.w1"
  ParameterKind kind;
  int64_t layer = -1;                      // -1 = of no layer
  int64_t groups = 1, rows = 1, cols = 1;  // a stack of matrices; vectors have rows = 1
  bool routed = false;                     // one matrix per expert
  int64_t numel() const { return groups * rows * cols; }
};

inline constexpr int64_t ve_gate_channels = 12;

// Has a copy in the activations' precision (or FP8) for matrix products; the router, the gates and the embeddings are
// read from the master weights.
bool is_gemm_weight(ParameterKind);
bool weight_is_fp8(const ModelShape&, const ParameterSpec&);
// Muon updates every matrix of the blocks, AdamW the rest.
bool is_muon(ParameterKind);
// Elements of the second optimizer moment: Muon keeps one row or column of the longer side per matrix.
int64_t second_moment_count(const ParameterSpec&);

// In forward order; the order is part of nothing but messages.
std::vector<ParameterSpec> list_parameters(const RunConfig&);

int64_t count_parameters(const RunConfig&);
// Those a token meets in a matrix product: attention, value-embedding gates, router, k + 1 experts, lm_head.
int64_t count_active_matmul_parameters(const RunConfig&);
// 6 * active matmul parameters + sum over layers of 12 * d * min(window, T).
double flops_per_token(const RunConfig&);

}  // namespace assay
