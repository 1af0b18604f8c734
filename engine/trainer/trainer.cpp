#include "engine/trainer/trainer.h"

#include <fmt/core.h>

#include "engine/ops/error.h"
#include "engine/trainer/run_trainer.h"

namespace assay {
namespace {

void check(const RunConfig& config) {
  const std::vector<ConfigProblem> problems = validate(config);
  if (problems.empty()) return;
  std::string text;
  for (const ConfigProblem& p : problems) text += (text.empty() ? "" : "\n") + p.message;
  throw EngineError(FailureReason::config_invalid, text, "validate");
}

}  // namespace

std::unique_ptr<Trainer> Trainer::create(const RunConfig& config, const TrainerOptions& options) {
  check(config);
  if (config.backend == Backend::cuda)
    throw EngineError(FailureReason::plan_error,
                      "backend = \"cuda\": this build has the cpu backend only; set backend = \"cpu\" or \"auto\", or "
                      "build with CUDA",
                      "plan");
  return std::make_unique<RunTrainer>(config, options, Backend::cpu, make_cpu_ops(), /*rank=*/0, /*world_size=*/1);
}

}  // namespace assay
