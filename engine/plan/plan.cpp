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

// 16-byte rows for vector loads and TMA; cuDNN's attention takes these head sizes.
Status check_cuda(const RunConfig& config, const ModelShape& s) {
  if (config.precision == Precision::fp32)
    return refuse(
        "precision = \"fp32\" is the parity reference of the CPU backend; the cuda backend runs bf16 and fp8");
  const int64_t multiple = s.dense_fp8 ? 16 : 8;
  for (const auto& [name, size] : {std::pair{"model width", s.d}, {"expert width", s.h}, {"model.vocab_size", s.vocab}})
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
  return {};
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
