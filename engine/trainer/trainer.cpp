#include "engine/trainer/trainer.h"

#include <fmt/core.h>

#include "engine/ops/error.h"
#include "engine/trainer/open_backend.h"
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
  OpenedBackend backend = open_backend(config);
  return std::make_unique<RunTrainer>(config, options, backend.kind, std::move(backend.ops), /*rank=*/0,
                                      /*world_size=*/1);
}

}  // namespace assay
