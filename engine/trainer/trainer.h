// The training engine: one rank of one run. Throws EngineError only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/plan/plan.h"
#include "spec/run_config.h"
#include "spec/step_metrics.h"

namespace assay {

struct TrainerOptions {
  std::string checkpoint_folder;  // empty = checkpoints are off
  bool resume = true;             // continue from the newest good checkpoint, if any
};

class Trainer {
 public:
  // Opens data, builds the plan, allocates, initialises or resumes.
  static std::unique_ptr<Trainer> create(const RunConfig&, const TrainerOptions&);
  virtual ~Trainer() = default;
  virtual const RunPlan& plan() const = 0;
  virtual int64_t next_step() const = 0;          // == config.train.steps when done
  virtual int64_t resumed_from_step() const = 0;  // -1 = started fresh
  virtual StepMetrics step() = 0;                 // one optimizer step, with its validation if due
  virtual void save_checkpoint() = 0;
  virtual std::vector<std::string> notes()
      const = 0;  // lines worth a place in the log: plan, captures, skipped checkpoints
};

}  // namespace assay
