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

std::string long_run_line(const ReportRun& run, const std::vector<const ReportCell*>& done) {
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
    line += fmt::format(", every observed loss finite, last loss {:.4f}", s.last_loss);
  for (const ReportCell* cell : done) {
    const ReportCell self{.name = run.run.name, .first = &run};
    if (cell->first->run.total_steps >= run.run.total_steps || cell->tok_per_sec.mean <= 0 ||
        !differ_only_in(Axis::steps, *cell, self))
      continue;
    line += fmt::format(", at {} the tok/sec of the shorter {}",
                        ratio_text(s.tail50_tok_per_sec / cell->tok_per_sec.mean), md_code(cell->name));
    break;
  }
  return line + ".";
}

}  // namespace

void add_long_runs(std::vector<std::string>& lines, const std::vector<ReportCell>& cells,
                   const std::vector<const ReportCell*>& done) {
  const int64_t usual = usual_steps(cells);
  for (const ReportCell& cell : cells)
    for (const ReportRun* run : cell.runs)
      if (run->run.total_steps > usual)
        if (std::string line = long_run_line(*run, done); !line.empty()) lines.push_back(line);
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
