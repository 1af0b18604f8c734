#include "spec/run_config.h"

#include <fmt/format.h>

#include <algorithm>

namespace assay {
namespace {

int round_up(int64_t value, int64_t multiple) {
  return static_cast<int>((value + multiple - 1) / multiple * multiple);
}

}  // namespace

RunConfig preset_config(Preset preset) {
  RunConfig config{.preset = preset};
  if (preset == Preset::nanochat) {
    config.model.residual_lambdas = true;
    config.train.scalar_lr = 0.5;
  }
  return config;
}

int model_width(const ModelConfig& m) {
  return m.d_model != 0 ? m.d_model : round_up(64ll * m.depth, m.head_dim);
}

int expert_width(const ModelConfig& m) {
  // 4d/(k+1) rounded to the nearest multiple of 128, halves up: (2*4d + 128(k+1)) / (2*128(k+1)) in integers.
  const int64_t unit = 128ll * (m.top_k + 1);
  const int64_t multiples = (8ll * model_width(m) + unit) / (2 * unit);
  return static_cast<int>(std::max<int64_t>(128, multiples * 128));
}

int attention_window(const ModelConfig& m, int layer) {
  const bool last = layer == m.depth - 1;
  const char kind = m.window_pattern[static_cast<size_t>(layer) % m.window_pattern.size()];
  if (last || kind == 'L') return m.sequence_len;
  return std::min(m.sequence_len, round_up((m.sequence_len + 3) / 4, 128));
}

bool has_value_embedding(const ModelConfig& m, int layer) {
  return m.value_embeddings && (m.depth - 1 - layer) % 2 == 0;
}

std::optional<std::string> fault_problem(const RunConfig& config, bool allowed) {
  if (allowed || config.fault.kind == FaultKind::none) return std::nullopt;
  return fmt::format(
      "fault.kind = \"{}\": injected faults are not allowed here; start assayd with "
      "--allow-fault-injection, or assay-trainer with --allow-faults",
      to_string(config.fault.kind));
}

int64_t grad_accum(const RunConfig& c) {
  return c.train.total_batch_tokens / (static_cast<int64_t>(c.devices) * c.train.device_batch * c.model.sequence_len);
}

}  // namespace assay
