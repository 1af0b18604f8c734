// The trainer of one rank: data, device, optimizer and checkpoints around the model's micro-steps.
#pragma once

#include <array>
#include <deque>

#include "engine/trainer/batches.h"
#include "engine/trainer/device_run.h"
#include "engine/trainer/trainer.h"

namespace assay {

class RunTrainer final : public Trainer {
 public:
  RunTrainer(const RunConfig&, const TrainerOptions&, Backend, std::unique_ptr<Ops>, int rank, int world_size);

  const RunPlan& plan() const override { return device_.plan(); }
  int64_t next_step() const override { return next_step_; }
  int64_t resumed_from_step() const override { return resumed_from_; }
  StepMetrics step(bool run_ahead = false) override;
  bool has_step_ahead() const override { return !started_.empty(); }
  OpsCounters counters() const override { return ops_->counters(); }
  void save_checkpoint() override;
  std::vector<std::string> notes() const override;

  // For tests and tools that look inside.
  Model& model() { return device_.model(); }
  Ops& ops() { return *ops_; }

 private:
  // A step handed to the device whose results have not been looked at.
  struct StartedStep {
    int64_t step = 0;
    LoaderCursor start;          // of its first micro-batch
    int64_t begin = 0, end = 0;  // marks
    StepReadback* readback = nullptr;
  };

  StartedStep start_step(int64_t step);
  double mean_loss(const StepResults&) const;
  StepResults finish_step(StartedStep&);
  void wait_for_all();
  double peak_mem_mib() const;
  StepMetrics metrics_of(const StartedStep&, const StepResults&);
  void expert_loads(const StepResults&, StepMetrics&) const;
  double validation_loss();
  bool validation_due(int64_t step) const;
  bool may_run_ahead() const;
  [[noreturn]] void fail_non_finite(const StartedStep&, const StepResults&);
  std::string first_non_finite(const LoaderCursor& start);

  RunConfig config_;
  TrainerOptions options_;
  std::unique_ptr<Ops> ops_;
  int world_size_;
  DeviceRun device_;
  Batches batches_;
  CorpusIdentity corpus_;  // empty without checkpoints
  std::array<std::unique_ptr<StepReadback>, 2> readbacks_;
  std::deque<StartedStep> started_;  // at most one beyond the step that is asked for
  int64_t next_step_ = 0;
  int64_t steps_made_ = 0;  // by this process
  int64_t last_launches_ = 0, last_host_syncs_ = 0;
  int64_t resumed_from_ = -1;
  std::vector<std::string> start_notes_;
};

}  // namespace assay
