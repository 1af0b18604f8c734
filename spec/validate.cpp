// What makes a complete run config legal. Rules over one field first; rules over several fields only look at fields
// that passed, so one mistake gives one message.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/limits.h"
#include "base/utf8.h"
#include "spec/backend.h"
#include "spec/config_fields.h"

namespace assay {
namespace {

class Validator {
 public:
  explicit Validator(const RunConfig& config) : c_(config) {}

  std::vector<ConfigProblem> run() {
    check_top();
    check_model();
    check_train();
    check_data_and_fault();
    check_shapes();
    check_batch();
    check_precision();
    return std::move(problems_);
  }

 private:
  void problem(std::string_view path, std::string message, std::vector<std::string> related = {}) {
    wrong_.insert(path);
    problems_.push_back({std::string(path), std::move(message), std::move(related)});
  }
  bool fine(std::initializer_list<std::string_view> paths) const {
    return std::ranges::none_of(paths, [&](std::string_view path) { return wrong_.contains(path); });
  }
  void range(std::string_view path, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      problem(path, fmt::format("{} = {} is out of range; expected {} to {}", path, value, low, high));
  }
  // Not a number and infinity fail every comparison here.
  void between(std::string_view path, double value, double low, double high) {
    if (!(value >= low && value <= high))
      problem(path, fmt::format("{} = {} is out of range; expected {} to {}", path, value, low, high));
  }
  void positive(std::string_view path, double value) {
    if (!(std::isfinite(value) && value > 0))
      problem(path, fmt::format("{} = {} is out of range; expected a finite number above 0", path, value));
  }
  void not_negative(std::string_view path, double value) {
    if (!(std::isfinite(value) && value >= 0))
      problem(path, fmt::format("{} = {} is out of range; expected a finite number, 0 or more", path, value));
  }

  void check_top() {
    range("devices", c_.devices, 1, limits::devices_per_run);
    between("capacity_factor", c_.capacity_factor, 1, limits::experts);
    range("recompile_limit", c_.recompile_limit, 0, limits::recompile_limit);
  }

  void check_model() {
    const ModelConfig& m = c_.model;
    range("model.depth", m.depth, 1, limits::depth);
    range("model.d_model", m.d_model, 0, limits::d_model);
    if (m.head_dim < 16 || m.head_dim > 256 || m.head_dim % 8 != 0)
      problem("model.head_dim",
              fmt::format("model.head_dim = {} is not supported; expected a multiple of 8 from 16 to 256", m.head_dim));
    range("model.experts", m.experts, 1, limits::experts);
    range("model.top_k", m.top_k, 1, limits::experts);
    range("model.vocab_size", m.vocab_size, 2, limits::vocab_size);
    range("model.sequence_len", m.sequence_len, 1, limits::sequence_len);
    const bool letters = std::ranges::all_of(m.window_pattern, [](char c) { return c == 'S' || c == 'L'; });
    if (m.window_pattern.empty() || !letters || m.window_pattern.size() > static_cast<size_t>(limits::depth))
      problem("model.window_pattern",
              fmt::format("model.window_pattern = {} is not a pattern; expected 1 to {} letters S (short) or L (long), "
                          "such as \"SSSL\"",
                          in_quotes(m.window_pattern), limits::depth));
    positive("model.softcap", m.softcap);
    not_negative("model.router_bias_rate", m.router_bias_rate);
    positive("model.rope_base", m.rope_base);
  }

  void check_train() {
    const TrainConfig& t = c_.train;
    range("train.steps", t.steps, 1, limits::steps_per_run);
    range("train.total_batch_tokens", t.total_batch_tokens, 1, limits::batch_tokens);
    range("train.device_batch", t.device_batch, 1, limits::batch_tokens);
    range("train.seed", t.seed, 0, limits::seed);
    positive("train.matrix_lr", t.matrix_lr);
    positive("train.embedding_lr", t.embedding_lr);
    positive("train.unembedding_lr", t.unembedding_lr);
    positive("train.scalar_lr", t.scalar_lr);
    not_negative("train.weight_decay", t.weight_decay);
    range("train.warmup_steps", t.warmup_steps, 0, limits::steps_per_run);
    between("train.warmdown_ratio", t.warmdown_ratio, 0, 1);
    between("train.final_lr_frac", t.final_lr_frac, 0, 1);
    range("train.val_every", t.val_every, 0, limits::steps_per_run);
    range("train.val_tokens", t.val_tokens, 1, limits::batch_tokens);
    range("train.checkpoint_every", t.checkpoint_every, 0, limits::steps_per_run);
    range("train.timeout_s", t.timeout_s, 0, limits::timeout_s);
  }

  void check_data_and_fault() {
    const std::string& path = c_.data.path;
    const bool control = std::ranges::any_of(path, [](unsigned char c) { return c < 0x20 || c == 0x7F; });
    if (path.empty())
      problem("data.path", "data.path is empty; expected the folder of the token shards");
    else if (path.size() > limits::path_chars)
      problem("data.path",
              fmt::format("data.path is {} bytes long; expected at most {}", path.size(), limits::path_chars));
    else if (control || !is_utf8(path))
      problem("data.path", "data.path holds control characters or is not UTF-8; expected a readable path");
    range("fault.step", c_.fault.step, 0, limits::steps_per_run);
    range("fault.attempts", c_.fault.attempts, 1, limits::max_attempts);
  }

  void check_shapes() {
    const ModelConfig& m = c_.model;
    if (fine({"model.top_k", "model.experts"}) && m.top_k > m.experts)
      problem("model.top_k",
              fmt::format("model.top_k = {} is more than model.experts = {}; expected 1 to {}", m.top_k, m.experts,
                          m.experts),
              {"model.experts"});
    if (fine({"model.d_model", "model.head_dim"}) && m.d_model % m.head_dim != 0)
      problem("model.d_model",
              fmt::format("model.d_model = {} is not divisible by model.head_dim = {}; expected a multiple of it, or 0 "
                          "to take 64*depth rounded up",
                          m.d_model, m.head_dim),
              {"model.head_dim"});
  }

  void check_batch() {
    if (!fine({"devices", "train.total_batch_tokens", "train.device_batch", "model.sequence_len"})) return;
    const int64_t micro = static_cast<int64_t>(c_.devices) * c_.train.device_batch * c_.model.sequence_len;
    if (c_.train.total_batch_tokens % micro != 0)
      problem("train.total_batch_tokens",
              fmt::format("train.total_batch_tokens = {} is not divisible by devices * train.device_batch * "
                          "model.sequence_len = {} * {} * {} = {}; expected a multiple of {}",
                          c_.train.total_batch_tokens, c_.devices, c_.train.device_batch, c_.model.sequence_len, micro,
                          micro),
              {"devices", "train.device_batch", "model.sequence_len"});
  }

  void check_precision() {
    if (auto text = precision_problem(c_.backend, c_.precision)) problem("precision", *std::move(text), {"backend"});
    if (c_.fp8.wgrad == Fp8Wgrad::fp8 && c_.fp8.recipe != Fp8Recipe::tensorwise)
      problem(
          "fp8.wgrad",
          fmt::format("fp8.wgrad = fp8 does not go with fp8.recipe = {}: weight gradients sum over tokens, so {} "
                      "scales would need a second quantisation along tokens; expected fp8.recipe = \"tensorwise\" or "
                      "fp8.wgrad = \"bf16\"",
                      to_string(c_.fp8.recipe), to_string(c_.fp8.recipe)),
          {"fp8.recipe"});
    if (!is_fp8(c_.precision)) return;
    if (!fine({"model.depth", "model.d_model", "model.head_dim", "model.top_k", "model.experts"})) return;
    const int multiple = c_.fp8.recipe == Fp8Recipe::blockwise ? fp8_block : fp8_multiple;
    const int d = model_width(c_.model);
    const int h = expert_width(c_.model);
    if (d % multiple != 0 || h % multiple != 0)
      problem(
          "precision",
          fmt::format("precision = {} with fp8.recipe = {} needs the model width d = {} and the expert width h = {} to "
                      "be multiples of {}; expected another model.d_model, model.depth or model.head_dim",
                      to_string(c_.precision), to_string(c_.fp8.recipe), d, h, multiple),
          {"fp8.recipe", "model.d_model", "model.depth", "model.head_dim"});
  }

  const RunConfig& c_;
  std::vector<ConfigProblem> problems_;
  std::set<std::string_view> wrong_;
};

}  // namespace

std::vector<ConfigProblem> validate(const RunConfig& config) {
  return Validator(config).run();
}

}  // namespace assay
