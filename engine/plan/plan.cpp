#include "engine/plan/plan.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"
#include "engine/plan/parameters.h"
#include "engine/plan/program.h"

namespace assay {
namespace {

constexpr double mib = 1024.0 * 1024.0;
// What a process on the CPU holds besides the arena and the scratch below: program, libraries, threads and OpenBLAS's
// buffers, 20 to 40 MiB in engine_bench (resident_peak_mib less the rest).
constexpr double cpu_overhead_mib = 40;
// Rows of a tile of the grouped products: a tile must not meet two experts.
constexpr int64_t cuda_row_alignment = 128;

// The CPU's products widen both operands to FP32 and keep the FP32 result before its rounding; these buffers stay at
// the largest product they met. FP32 and FP64 runs read operands in place.
double cpu_scratch_mib(const ModelShape& s) {
  if (s.activation_bytes != 2) return 0;
  const int64_t widest = std::max(3 * s.d, s.h);
  const int64_t left = std::max(s.logits_rows * s.vocab, s.tokens * widest);
  const int64_t right = std::max({s.vocab * s.d, 3 * s.d * s.d, s.tokens * std::max(s.d, s.h)});
  return static_cast<double>(left + right + left) * 4 / mib;
}

// What the CUDA backend allocates besides the arena: the workspace of the ops and cuDNN's for the backward of
// attention. That one keeps dq in FP32 and a sum per row of the scores; to be deterministic, a dq for every 256 keys,
// or 128 with heads of 64. Exact with cuDNN 9.14 (T from 256 to 4,096): 193.5 and 1,537.5 MiB at d12.
double cuda_overhead_mib(const RunConfig& config, const ModelShape& s) {
  const int64_t keys = s.head_dim == 64 ? 128 : 256;
  const double copies = config.train.deterministic ? static_cast<double>((s.T + keys - 1) / keys) : 1;
  const double attention =
      static_cast<double>(s.tokens * s.heads) * (copies * static_cast<double>(s.head_dim) + 1) * sizeof(float);
  return (static_cast<double>(limits::cuda_workspace_bytes) + attention) / mib;
}

Error refuse(std::string message) {
  return Error{ErrorCode::invalid_argument, std::move(message)};
}

Status check_config(const RunConfig& config) {
  const std::vector<ConfigProblem> problems = validate(config);
  if (problems.empty()) return {};
  std::string text = "the config is not valid:";
  for (const ConfigProblem& p : problems) text += fmt::format(" {}: {};", p.path, p.message);
  text.pop_back();
  return refuse(text);
}

// Row numbers are 32-bit on the device.
Status check_rows(const ModelShape& s) {
  constexpr int64_t most = INT32_MAX;
  if (s.routed_rows > most || s.tokens * s.top_k > most)
    return refuse(
        fmt::format("a micro-batch of {} tokens with {} experts each needs {} routed rows, more than {}; "
                    "lower train.device_batch",
                    s.tokens, s.top_k, s.routed_rows, most));
  return {};
}

// What the CUDA ops take of their workspace at most: those bound by memory (engine/ops/cuda/workspace.h), or the parts
// of the gates' gradients, a float for each row and 128 columns.
double cuda_workspace_needed(const ModelShape& s) {
  const double per_token = static_cast<double>(s.d) / 8 + static_cast<double>(10 * s.heads + 16 * s.top_k + 64);
  const double parts = static_cast<double>(s.routed_rows) * static_cast<double>((s.h + 127) / 128) * 4;
  return (64 << 20) + std::max(static_cast<double>(s.tokens) * per_token, parts);
}

// The bounds of the kernels, by the key that is to be changed.
Status check_cuda_limits(const ModelShape& s) {
  if (s.experts > limits::cuda_experts)
    return refuse(
        fmt::format("model.experts = {}; the cuda backend takes at most {}", s.experts, limits::cuda_experts));
  if (s.top_k > limits::cuda_top_k)
    return refuse(fmt::format("model.top_k = {}; the cuda backend takes at most {}", s.top_k, limits::cuda_top_k));
  if (s.d > limits::cuda_width)
    return refuse(
        fmt::format("the model width is {} (model.d_model, or 64 * model.depth); the cuda backend takes at most {}",
                    s.d, limits::cuda_width));
  if (s.heads > limits::cuda_heads)
    return refuse(
        fmt::format("the model has {} heads (its width {} / model.head_dim {}); the cuda backend takes at most {}",
                    s.heads, s.d, s.head_dim, limits::cuda_heads));
  if (s.dense_fp8 && (s.tokens > limits::cuda_fp8_rows || s.routed_rows > 2 * limits::cuda_fp8_rows))
    return refuse(fmt::format(
        "a micro-batch of {} tokens has {} routed rows; in FP8 the cuda backend takes at most {} tokens and {} rows; "
        "lower train.device_batch",
        s.tokens, s.routed_rows, limits::cuda_fp8_rows, 2 * limits::cuda_fp8_rows));
  if (cuda_workspace_needed(s) > static_cast<double>(limits::cuda_workspace_bytes))
    return refuse(fmt::format(
        "a micro-batch of {} tokens needs {:.0f} MiB of the cuda backend's scratch memory, which has {:.0f}; "
        "lower train.device_batch",
        s.tokens, cuda_workspace_needed(s) / mib, static_cast<double>(limits::cuda_workspace_bytes) / mib));
  return {};
}

// 16-byte rows for vector loads and TMA; cuDNN's attention takes these head sizes.
Status check_cuda(const RunConfig& config, const ModelShape& s) {
  if (config.precision == Precision::fp32)
    return refuse(
        "precision = \"fp32\" is the parity reference of the CPU backend; the cuda backend runs bf16 and fp8");
  const int64_t multiple = s.dense_fp8 ? 16 : 8;
  for (const auto& [name, size] : {std::pair{"the model width (model.d_model, or 64 * model.depth)", s.d},
                                   {"the expert width (4 * width / (model.top_k + 1))", s.h},
                                   {"model.vocab_size", s.vocab}})
    if (size % multiple != 0)
      return refuse(fmt::format("{} is {}; the cuda backend needs a multiple of {} for precision \"{}\"", name, size,
                                multiple, to_string(config.precision)));
  if (s.tokens % 16 != 0)
    return refuse(
        fmt::format("a micro-batch has {} tokens (train.device_batch * model.sequence_len); the cuda backend "
                    "needs a multiple of 16",
                    s.tokens));
  if (config.devices > 1)
    return refuse(fmt::format("devices = {}: the cuda backend runs on one device; set devices = 1", config.devices));
  if (s.head_dim != 64 && s.head_dim != 128)
    return refuse(fmt::format("model.head_dim is {}; the cuda backend has attention for 64 and 128", s.head_dim));
  return check_cuda_limits(s);
}

Status check_cpu(const RunConfig& config) {
  if (config.devices > 1)
    return refuse(fmt::format("devices = {}: the cpu backend runs on one device; set devices = 1", config.devices));
  return {};
}

}  // namespace

Result<RunPlan> build_plan(const RunConfig& config, Backend backend, const PlanOptions& options) {
  ASSAY_TRY(check_config(config));
  RunPlan plan;
  PlanOptions chosen = options;
  if (backend == Backend::cuda) chosen.row_alignment = cuda_row_alignment;
  plan.shape = model_shape(config, chosen);
  ASSAY_TRY(check_rows(plan.shape));
  ASSAY_TRY(backend == Backend::cuda ? check_cuda(config, plan.shape) : check_cpu(config));
  plan.parameters = count_parameters(config);
  plan.active_matmul_parameters = count_active_matmul_parameters(config);
  plan.flops_per_token = flops_per_token(config);
  plan.static_capacity = plan.shape.capacity;
  plan.buffers = describe_step(config, plan.shape);
  plan.arena_bytes = lay_out(plan.buffers);
  const double overhead =
      backend == Backend::cuda ? cuda_overhead_mib(config, plan.shape) : cpu_overhead_mib + cpu_scratch_mib(plan.shape);
  plan.peak_mem_mib = static_cast<double>(plan.arena_bytes) / mib + overhead;
  return plan;
}

}  // namespace assay
