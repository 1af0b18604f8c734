#include "report/loss.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/markdown.h"

namespace assay {
namespace {

// The last `count` steps the model was trained with, newest first. An attempt that was resumed has only the steps after
// its checkpoint: those before it are an earlier attempt's, whose own steps after it are not part of this model.
std::vector<const StepMetrics*> last_steps(const ReportRun& run, int64_t count) {
  std::vector<const StepMetrics*> steps;
  int64_t before = std::numeric_limits<int64_t>::max();
  for (auto a = run.attempts.rbegin(); a != run.attempts.rend(); ++a) {
    for (auto m = a->steps.rbegin(); m != a->steps.rend(); ++m) {
      if (m->step >= before) continue;
      before = m->step;
      steps.push_back(&*m);
      if (static_cast<int64_t>(steps.size()) == count) return steps;
    }
    if (a->attempt.resumed_from_step >= 0) before = std::min(before, a->attempt.resumed_from_step);
  }
  return steps;
}

}  // namespace

LossChoice choose_loss(const std::vector<const ReportRun*>& completed) {
  if (completed.empty()) return {LossKind::training, "no run has completed"};
  const ReportRun* without = nullptr;
  bool any = false;
  for (const ReportRun* run : completed) {
    const bool measured = !std::isnan(run_loss(*run, LossKind::validation).value);
    any = any || measured;
    if (!measured && !without) without = run;
  }
  if (!any) return {LossKind::training, "no completed run has measured it (`train.val_every`)"};
  if (without)
    return {LossKind::training, fmt::format("{} has not measured it (`train.val_every`)", md_code(without->run.name))};
  for (const ReportRun* run : completed)
    if (run->config.train.val_tokens != completed[0]->config.train.val_tokens)
      return {LossKind::training, "the runs have measured it on different numbers of tokens (`train.val_tokens`)"};
  return {LossKind::validation, ""};
}

RunLoss run_loss(const ReportRun& run, LossKind kind) {
  const double none = std::numeric_limits<double>::quiet_NaN();
  const auto steps = last_steps(run, kind == LossKind::validation ? 1 : tail_steps);
  if (kind == LossKind::validation) {
    const bool at_the_end = !steps.empty() && steps[0]->step + 1 == run.run.total_steps;
    return {at_the_end ? steps[0]->val_loss : none, 0};
  }
  if (steps.empty()) return {none, 0};
  double sum = 0;
  for (const StepMetrics* m : steps) sum += m->loss;
  const auto count = static_cast<int64_t>(steps.size());
  return {sum / static_cast<double>(count), count};
}

std::string loss_name(LossKind kind) {
  return kind == LossKind::validation ? "validation loss" : "training loss";
}

std::string loss_window(LossKind kind, int64_t steps) {
  return kind == LossKind::validation ? "" : fmt::format("mean of the last {} steps", steps);
}

}  // namespace assay
