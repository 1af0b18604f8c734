// Which loss a report compares, and what it is of one run. Never that of one training step: between neighbouring steps
// it moves more than most ablations do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "report/report.h"

namespace assay {

enum class LossKind {
  validation,  // after the run's last step
  training,    // mean of the run's last 50 steps (tail_steps), or of all where it has fewer
};

struct LossChoice {
  LossKind kind = LossKind::training;
  std::string why_not_validation;  // the reason as a part of a sentence; empty where kind is validation
};
// Validation where every run of `completed` measured it after its last step and on equally many tokens, so that all
// numbers of a report are of one kind.
LossChoice choose_loss(const std::vector<const ReportRun*>& completed);

struct RunLoss {
  double value = 0;   // NaN where there is none, or a training loss in it was not finite
  int64_t steps = 0;  // the steps it is a mean of; 0 for validation
};
RunLoss run_loss(const ReportRun&, LossKind);

// "validation loss", "training loss".
std::string loss_name(LossKind);
// "mean of the last 50 steps"; empty for validation.
std::string loss_window(LossKind, int64_t steps);

}  // namespace assay
