#include "engine/trainer/trainer.h"

#include <fmt/core.h>

#include "base/memory.h"
#include "engine/backend/open_backend.h"
#include "engine/check/run_check.h"
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

// What plan and enqueue ask before a run is queued, asked again where and when it starts.
void check_run(const RunConfig& config, Backend backend) {
  DeviceOffer device{.backend = backend};
  if (backend == Backend::cpu) {
    const HostMemory memory = host_memory();
    device.memory_bytes = memory.total_bytes;
    device.available_bytes = memory.available_bytes;
  }  // of a GPU the allocation itself tells
  const RunCheck checked = RunChecker().check(config, device);
  const auto& problem = checked.problem ? checked.problem : checked.shortage;
  if (problem) throw EngineError(problem->reason, problem->message, "check");
}

}  // namespace

std::unique_ptr<Trainer> Trainer::create(const RunConfig& config, const TrainerOptions& options) {
  check(config);
  OpenedBackend backend = open_backend(config);
  check_run(config, backend.kind);
  // Runs over several devices will have a trainer for each rank; today there is one.
  return std::make_unique<RunTrainer>(config, options, backend.kind, std::move(backend.ops), /*rank=*/0,
                                      /*world_size=*/1);
}

}  // namespace assay
