#include "engine/check/run_check.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "engine/plan/plan.h"
#include "engine/plan/schedule.h"

namespace assay {
namespace {

constexpr double mib = 1 << 20;
constexpr std::string_view smaller = "use a smaller model, train.device_batch or model.sequence_len";

double in_mib(int64_t bytes) {
  return static_cast<double>(bytes) / mib;
}

std::optional<RunProblem> memory_problem(double peak_mem_mib, const DeviceOffer& device) {
  const int64_t reserve = device.backend == Backend::cuda ? limits::cuda_reserve_bytes : limits::host_reserve_bytes;
  if (device.memory_bytes == 0 || peak_mem_mib <= in_mib(device.memory_bytes - reserve)) return std::nullopt;
  return RunProblem{
      FailureReason::out_of_memory,
      fmt::format("needs {:.0f} MiB a device, the largest {} has {:.0f} MiB, of which {:.0f} are kept for the "
                  "{}; {}",
                  peak_mem_mib, device_word(device.backend), in_mib(device.memory_bytes), in_mib(reserve),
                  device.backend == Backend::cuda ? "driver's own" : "system", smaller)};
}

std::optional<RunProblem> memory_shortage(double peak_mem_mib, const DeviceOffer& device) {
  if (device.available_bytes == 0 || peak_mem_mib <= in_mib(device.available_bytes)) return std::nullopt;
  return RunProblem{
      FailureReason::out_of_memory,
      fmt::format("needs {:.0f} MiB, but only {:.0f} of this host's {:.0f} MiB are available now and it would "
                  "swap; end other programs, or {}",
                  peak_mem_mib, in_mib(device.available_bytes), in_mib(device.memory_bytes), smaller)};
}

}  // namespace

std::string_view device_word(Backend backend) {
  return backend == Backend::cuda ? "GPU" : "CPU device";
}

RunCheck RunChecker::check(const RunConfig& config, const DeviceOffer& device, const std::string& plan_key) {
  Planned planned;
  if (const auto known = plans_.find(plan_key); known != plans_.end())
    planned = known->second;
  else
    planned = plan(config, device.backend);
  if (!plan_key.empty()) plans_.try_emplace(plan_key, planned);
  RunCheck result{.parameters = planned.parameters,
                  .peak_mem_mib = planned.peak_mem_mib,
                  .mflop_per_token = planned.mflop_per_token,
                  .problem = planned.problem};
  result.warnings = schedule_warnings(config.train);
  if (!result.problem) result.problem = data_problem(config);
  if (!result.problem) result.problem = memory_problem(planned.peak_mem_mib, device);
  if (!result.problem) result.shortage = memory_shortage(planned.peak_mem_mib, device);
  return result;
}

RunChecker::Planned RunChecker::plan(const RunConfig& config, Backend backend) {
  const auto plan = build_plan(config, backend);
  if (!plan.ok()) return {.problem = RunProblem{FailureReason::plan_error, plan.error().message}};
  return {plan->parameters, plan->peak_mem_mib, plan->flops_per_token / 1e6, {}};
}

std::optional<RunProblem> RunChecker::data_problem(const RunConfig& config) {
  auto it = corpora_.find(config.data.path);
  if (it == corpora_.end()) it = corpora_.emplace(config.data.path, look_at_corpus(config.data.path)).first;
  const Result<CorpusFacts>& facts = it->second;
  if (!facts.ok()) return RunProblem{FailureReason::data_error, "data.path: " + facts.error().message};
  if (auto problem = corpus_problem(config, *facts)) return RunProblem{FailureReason::data_error, *std::move(problem)};
  return std::nullopt;
}

std::vector<std::string> RunChecker::describe_corpora() const {
  std::vector<std::string> lines;
  for (const auto& [path, facts] : corpora_)
    if (facts.ok()) lines.push_back(describe(*facts));
  return lines;
}

}  // namespace assay
