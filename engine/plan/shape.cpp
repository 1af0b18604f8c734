#include "engine/plan/shape.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"

namespace assay {
namespace {

int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

}  // namespace

int64_t padded_capacity(const RunConfig& config, int64_t largest) {
  const int64_t tokens = static_cast<int64_t>(config.train.device_batch) * config.model.sequence_len;
  const auto wanted = static_cast<int64_t>(std::ceil(config.capacity_factor * static_cast<double>(largest)));
  // An expert is picked at most once by a token, so `tokens` rows always do.
  return round_up(std::clamp<int64_t>(wanted, 1, tokens), 128);
}

ModelShape model_shape(const RunConfig& config, const PlanOptions& options) {
  const ModelConfig& m = config.model;
  ModelShape s;
  s.batch = config.train.device_batch;
  s.T = m.sequence_len;
  s.tokens = s.batch * s.T;
  s.d = model_width(m);
  s.h = expert_width(m);
  s.head_dim = m.head_dim;
  s.heads = s.d / s.head_dim;
  s.experts = m.experts;
  s.top_k = m.top_k;
  s.vocab = m.vocab_size;
  s.layers = m.depth;
  s.eager = config.execution == Execution::eager;
  s.row_alignment = options.row_alignment;
  int64_t used_rows = s.top_k * s.tokens;
  if (config.execution == Execution::static_graph) {
    const int64_t fair_share = (used_rows + s.experts - 1) / s.experts;
    s.capacity = options.static_capacity > 0 ? options.static_capacity : padded_capacity(config, fair_share);
    used_rows = s.experts * s.capacity;
    s.routed_rows = s.experts * round_up(s.capacity, s.row_alignment);
  } else {  // any expert may leave up to row_alignment - 1 rows behind its own
    s.routed_rows = round_up(used_rows + s.experts * (s.row_alignment - 1), s.row_alignment);
  }
  s.has_gaps = s.routed_rows > used_rows;
  s.logits_rows = std::min<int64_t>(s.tokens, limits::logits_chunk_rows);
  const bool exact = config.precision == Precision::fp32;
  s.master_bytes = options.double_precision ? 8 : 4;
  s.activation_bytes = options.double_precision ? 8 : exact ? 4 : 2;
  s.dense_fp8 = config.precision == Precision::fp8_noexperts || config.precision == Precision::fp8_experts;
  s.routed_fp8 = config.precision == Precision::fp8_experts;
  s.head_fp8 = s.dense_fp8 && config.fp8.lm_head;
  s.wgrad_fp8 = s.dense_fp8 && config.fp8.recipe == Fp8Recipe::tensorwise && config.fp8.wgrad != Fp8Wgrad::bf16;
  s.fused_fp8 = s.wgrad_fp8 && !s.eager;
  s.recipe = config.fp8.recipe;
  s.codes_from_producers = s.dense_fp8 && s.recipe == Fp8Recipe::tensorwise;
  return s;
}

int64_t scale_count(Fp8Recipe recipe, Fp8Operand operand, int64_t groups, int64_t rows, int64_t cols) {
  const int64_t column_blocks = (cols + 127) / 128;
  switch (recipe) {
    case Fp8Recipe::tensorwise:
      return groups;
    case Fp8Recipe::rowwise:
      return groups * rows;
    case Fp8Recipe::blockwise:
      break;
  }
  return groups * column_blocks * (operand == Fp8Operand::weight ? (rows + 127) / 128 : rows);
}

int64_t fp8_slot(Fp8Slot slot, int64_t layer) {
  return layer * static_cast<int64_t>(Fp8Slot::count) + static_cast<int64_t>(slot);
}
int64_t fp8_slot_count(const ModelShape& s) {
  return s.layers * static_cast<int64_t>(Fp8Slot::count);
}
bool is_gradient(Fp8Slot slot) {
  return slot >= Fp8Slot::moe_grad;
}

std::string layer_name(int64_t layer, const char* what) {
  return "layer" + std::to_string(layer) + "." + what;
}

}  // namespace assay
