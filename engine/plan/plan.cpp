#include "engine/plan/plan.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"
#include "engine/plan/backend_check.h"
#include "engine/plan/parameters.h"
#include "engine/plan/program.h"

namespace assay {
namespace {

constexpr double mib = 1024.0 * 1024.0;
// What a process on the CPU holds besides the arena and the scratch below: program, libraries, threads and OpenBLAS's
// buffers, 20 to 40 MiB in engine_bench (resident_peak_mib less the rest).
constexpr double cpu_overhead_mib = 40;

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

Status check_config(const RunConfig& config) {
  const std::vector<ConfigProblem> problems = validate(config);
  if (problems.empty()) return {};
  std::string text = "the config is not valid:";
  for (const ConfigProblem& p : problems) text += fmt::format(" {}: {};", p.path, p.message);
  text.pop_back();
  return Error{ErrorCode::invalid_argument, std::move(text)};
}

}  // namespace

Result<RunPlan> build_plan(const RunConfig& config, Backend backend, const PlanOptions& options) {
  ASSAY_TRY(check_config(config));
  RunPlan plan;
  PlanOptions chosen = options;
  chosen.row_alignment = std::max(options.row_alignment, limits_of(backend, config.precision).row_alignment);
  plan.shape = model_shape(config, chosen);
  ASSAY_TRY(check_backend(config, plan.shape, backend));
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
