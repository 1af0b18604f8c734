#include "report/takeaways_runs.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/comparison.h"
#include "report/markdown.h"
#include "report/summary.h"

namespace assay {
namespace {

// The number of steps most cells have; runs with more are long runs.
int64_t usual_steps(const std::vector<ReportCell>& cells) {
  std::map<int64_t, int> counts;
  for (const ReportCell& cell : cells) ++counts[cell.first->run.total_steps];
  int64_t usual = 0;
  int most = 0;
  for (const auto& [steps, count] : counts) {
    if (count <= most) continue;
    most = count;
    usual = steps;
  }
  return usual;
}

int64_t not_finite_losses(const ReportAttempt& a) {
  return std::count_if(a.steps.begin(), a.steps.end(), [](const StepMetrics& m) { return !std::isfinite(m.loss); });
}

// A run that has not completed has no loss of its end: then it is the training loss so far.
std::string loss_text(const ReportRun& run, LossKind kind) {
  if (run.run.state != RunState::completed) kind = LossKind::training;
  const RunLoss loss = run_loss(run, kind);
  const std::string window = loss_window(kind, loss.steps);
  return fmt::format("{}{} {:.4f}", loss_name(kind), window.empty() ? "" : ", " + window + ",", loss.value);
}

std::string long_run_line(const ReportRun& run, LossKind kind) {
  const ReportAttempt* a = measured_attempt(run);
  if (!a || a->summary.steps_observed == 0) return {};
  const AttemptSummary& s = a->summary;
  std::string line = fmt::format("Long run {}: ", md_code(run.run.name));
  if (run.run.state == RunState::completed)
    line += fmt::format("completed {} of {} steps", s.last_step + 1, run.run.total_steps);
  else
    line += fmt::format("{} at step {} of {}", to_string(run.run.state), s.last_step, run.run.total_steps);
  if (const int64_t bad = not_finite_losses(*a); bad > 0)
    line += fmt::format(", {} of its {} observed losses not finite", bad, s.steps_observed);
  else
    line += fmt::format(", every observed loss finite; {}", loss_text(run, kind));
  return line + ".";
}

std::string long_cell_speed(const ReportCell& cell, const Evidence& evidence) {
  for (const ReportCell* shorter : evidence.done) {
    if (shorter->first->run.total_steps >= cell.first->run.total_steps || cell.tok_per_sec.n == 0 ||
        shorter->tok_per_sec.n == 0 || !differ_only_in(Axis::steps, *shorter, cell))
      continue;
    return fmt::format("Long run {}: runs at {} the tok/sec of the shorter {}{}.", md_code(cell.name),
                       ratio_text(cell.tok_per_sec, shorter->tok_per_sec), md_code(shorter->name),
                       evidence.certainty(cell.tok_per_sec, shorter->tok_per_sec));
  }
  return {};
}

}  // namespace

void add_long_runs(std::vector<std::string>& lines, const std::vector<ReportCell>& cells, const Evidence& evidence) {
  const int64_t usual = usual_steps(cells);
  const auto add = [&](std::string line) {
    if (!line.empty()) lines.push_back(std::move(line));
  };
  for (const ReportCell& cell : cells) {
    if (cell.first->run.total_steps <= usual) continue;
    for (const ReportRun* run : cell.runs) add(long_run_line(*run, cell.loss_kind));
    if (cell.completed()) add(long_cell_speed(cell, evidence));
  }
}

void add_failures(std::vector<std::string>& lines, const ReportInput& input) {
  std::map<std::string, int> reasons;
  int failed = 0;
  int recovered = 0;
  for (const ReportRun& run : input.runs) {
    bool had_failure = false;
    for (const ReportAttempt& a : run.attempts)
      had_failure = had_failure || a.attempt.outcome.result == AttemptResult::failed;
    recovered += had_failure && run.run.state == RunState::completed;
    if (run.run.state != RunState::failed) continue;
    ++failed;
    const ReportAttempt* a = current_attempt(run);
    ++reasons[a ? std::string(to_string(a->attempt.outcome.reason)) : "unknown"];
  }
  if (failed > 0) {
    std::string list;
    for (const auto& [reason, count] : reasons)
      list += fmt::format("{}{} {}", list.empty() ? "" : ", ", count, md_code(reason));
    lines.push_back(fmt::format("Failed: {} of {} runs ({}).", failed, input.runs.size(), list));
  }
  if (recovered > 0)
    lines.push_back(fmt::format("Completed after a failed attempt: {} of {} runs.", recovered, input.runs.size()));
}

}  // namespace assay
