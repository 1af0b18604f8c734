// The trainer of one rank: data, device, optimizer and checkpoints around the model's micro-steps.
#pragma once

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
  StepMetrics step() override;
  void save_checkpoint() override;
  std::vector<std::string> notes() const override;

  // For tests and tools that look inside.
  Model& model() { return device_.model(); }
  Ops& ops() { return *ops_; }

 private:
  void micro_steps();
  double gradient_norm();
  void expert_loads(StepMetrics&) const;
  double validation_loss();
  bool validation_due() const;
  [[noreturn]] void fail_non_finite(double loss, const LoaderCursor& start);

  RunConfig config_;
  TrainerOptions options_;
  std::unique_ptr<Ops> ops_;
  int world_size_;
  DeviceRun device_;
  Batches batches_;
  int64_t next_step_ = 0;
  int64_t resumed_from_ = -1;
  std::vector<std::string> start_notes_;
};

}  // namespace assay
