// The training engine: one rank of one run. Throws EngineError only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/ops/backend.h"
#include "engine/plan/plan.h"
#include "spec/run_config.h"
#include "spec/step_metrics.h"

namespace assay {

struct TrainerOptions {
  std::string checkpoint_folder;  // empty = checkpoints are off
  bool resume = true;             // continue from the owner's newest good checkpoint, if any
  CheckpointOwner owner = {};
};

class Trainer {
 public:
  // Opens data, builds the plan, allocates, initialises or resumes.
  static std::unique_ptr<Trainer> create(const RunConfig&, const TrainerOptions&);
  virtual ~Trainer() = default;
  virtual const RunPlan& plan() const = 0;
  virtual int64_t next_step() const = 0;          // == config.train.steps when done
  virtual int64_t resumed_from_step() const = 0;  // -1 = started fresh
  // One optimizer step, with its validation if due. run_ahead: a backend that works on its own may start the next step
  // before the results of this one are looked at, so that it never idles; call step() again before anything else then.
  virtual StepMetrics step(bool run_ahead = false) = 0;
  virtual bool has_step_ahead() const = 0;
  virtual OpsCounters counters() const = 0;  // of its backend, since it was made
  virtual void save_checkpoint() = 0;        // not while there is a step ahead
  virtual std::vector<std::string> notes()
      const = 0;  // lines worth a place in the log: plan, captures, skipped checkpoints
};

}  // namespace assay
