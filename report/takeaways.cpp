#include "report/takeaways.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/comparison.h"
#include "report/markdown.h"
#include "report/summary.h"

namespace assay {
namespace {

using Lines = std::vector<std::string>;
using Cells = std::vector<const ReportCell*>;

// What the repeats say about the difference just named, as the end of its sentence.
std::string certainty(const Estimate& a, const Estimate& b) {
  switch (compare(a, b)) {
    case Order::not_distinguishable:
      return "; not distinguishable: the 95 % intervals of the repeats overlap";
    case Order::no_repeats:
      return " (no repeats on both sides, so no interval)";
    default:
      return "";
  }
}

Cells completed(const std::vector<ReportCell>& cells) {
  Cells done;
  for (const ReportCell& cell : cells)
    if (cell.completed()) done.push_back(&cell);
  return done;
}

std::string steps_per_run(const ReportCell& cell) {
  return fmt::format("{} steps", cell.first->run.total_steps);
}

void fastest(Lines& lines, Cells done) {
  std::erase_if(done, [](const ReportCell* cell) { return cell->tok_per_sec.n == 0 || cell->tok_per_sec.mean <= 0; });
  if (done.empty()) return;
  std::stable_sort(done.begin(), done.end(),
                   [](const ReportCell* a, const ReportCell* b) { return a->tok_per_sec.mean > b->tok_per_sec.mean; });
  const ReportCell& first = *done[0];
  std::string line =
      fmt::format("Fastest: {} with {} tok/sec", md_code(first.name), estimate_text(first.tok_per_sec, 0));
  if (done.size() > 1) {
    const ReportCell& second = *done[1];
    line += fmt::format(", {} the next, {} ({} tok/sec){}",
                        ratio_text(first.tok_per_sec.mean / second.tok_per_sec.mean), md_code(second.name),
                        estimate_text(second.tok_per_sec, 0), certainty(first.tok_per_sec, second.tok_per_sec));
  }
  lines.push_back(line + ".");
}

void memory(Lines& lines, const Cells& done, const ReportCell& baseline) {
  const ReportCell* least = nullptr;
  for (const ReportCell* cell : done)
    if (cell->peak_mem_mib.n > 0 && (!least || cell->peak_mem_mib.mean < least->peak_mem_mib.mean)) least = cell;
  if (!least) return;
  std::string line = fmt::format("Memory: {} has the lowest peak, {} MiB", md_code(least->name),
                                 estimate_text(least->peak_mem_mib, 2));
  const Estimate& base = baseline.peak_mem_mib;
  if (least == &baseline) {
    line += "; it is the baseline, so nothing saves memory against it";
  } else if (base.n > 0) {
    const double saved = base.mean - least->peak_mem_mib.mean;
    line += saved > 0 ? fmt::format(": {:.2f} MiB ({:.1f} %) less than the baseline {}{}", saved,
                                    100 * saved / base.mean, md_code(baseline.name),
                                    compare(least->peak_mem_mib, base) == Order::not_distinguishable
                                        ? certainty(least->peak_mem_mib, base)
                                        : "")
                      : fmt::format(", the same as the baseline {}", md_code(baseline.name));
  }
  lines.push_back(line + ".");
}

void loss_gap(Lines& lines, Cells done, const ReportCell& baseline) {
  std::erase_if(done, [&](const ReportCell* cell) { return cell->loss.n == 0 || !same_steps(*cell, baseline); });
  if (done.size() < 2) return;
  const auto [low, high] = std::minmax_element(
      done.begin(), done.end(), [](const ReportCell* a, const ReportCell* b) { return a->loss.mean < b->loss.mean; });
  const double gap = (*high)->loss.mean - (*low)->loss.mean;
  lines.push_back(fmt::format("Loss after {}: from {} ({}) to {} ({}), a gap of {:.4f} ({:.2f} %){}.",
                              steps_per_run(baseline), estimate_text((*low)->loss, 4), md_code((*low)->name),
                              estimate_text((*high)->loss, 4), md_code((*high)->name), gap,
                              100 * gap / (*low)->loss.mean, certainty((*low)->loss, (*high)->loss)));
}

bool is_fp8(const ReportCell& cell) {
  return cell.first->config.precision == Precision::fp8_noexperts ||
         cell.first->config.precision == Precision::fp8_experts;
}

void fp8_against_bf16(Lines& lines, const Cells& done) {
  bool any_fp8 = false;
  bool any_pair = false;
  for (const ReportCell* fp8 : done) {
    if (!is_fp8(*fp8)) continue;
    any_fp8 = true;
    for (const ReportCell* bf16 : done) {
      if (bf16->first->config.precision != Precision::bf16 || !differ_only_in(Axis::precision, *fp8, *bf16)) continue;
      any_pair = true;
      std::string line = fmt::format("FP8 against BF16: {} runs at {} the tok/sec of {}{}", md_code(fp8->name),
                                     ratio_text(fp8->tok_per_sec.mean / bf16->tok_per_sec.mean), md_code(bf16->name),
                                     certainty(fp8->tok_per_sec, bf16->tok_per_sec));
      if (fp8->loss.n > 0 && bf16->loss.n > 0)
        line +=
            fmt::format("; its last loss differs by {:+.4f} ({:+.2f} %){}", fp8->loss.mean - bf16->loss.mean,
                        100 * (fp8->loss.mean - bf16->loss.mean) / bf16->loss.mean, certainty(fp8->loss, bf16->loss));
      if (fp8->peak_mem_mib.n > 0 && bf16->peak_mem_mib.n > 0)
        line += fmt::format("; its peak memory by {:+.2f} MiB", fp8->peak_mem_mib.mean - bf16->peak_mem_mib.mean);
      lines.push_back(line + ".");
    }
  }
  if (any_fp8 && !any_pair)
    lines.push_back(
        "FP8 against BF16: no completed FP8 cell has a completed BF16 cell with otherwise equal settings to compare "
        "with.");
}

// Cells that differ in the way of execution alone, fastest first.
void execution_modes(Lines& lines, const Cells& done) {
  std::vector<Cells> families;
  for (const ReportCell* cell : done) {
    const auto family = std::find_if(families.begin(), families.end(),
                                     [&](const Cells& f) { return differ_only_in(Axis::execution, *f[0], *cell); });
    if (family == families.end())
      families.push_back({cell});
    else
      family->push_back(cell);
  }
  for (Cells& family : families) {
    if (family.size() < 2) continue;
    std::stable_sort(family.begin(), family.end(), [](const ReportCell* a, const ReportCell* b) {
      return a->tok_per_sec.mean > b->tok_per_sec.mean;
    });
    const ReportCell& best = *family[0];
    std::string line = fmt::format("Execution modes, {}, {}: {} ({}) is the fastest at {} tok/sec",
                                   to_string(best.first->config.precision), steps_per_run(best), md_code(best.name),
                                   to_string(best.first->config.execution), estimate_text(best.tok_per_sec, 0));
    for (size_t i = 1; i < family.size(); ++i)
      line += fmt::format("; {} that of {} ({}){}", ratio_text(best.tok_per_sec.mean / family[i]->tok_per_sec.mean),
                          md_code(family[i]->name), to_string(family[i]->first->config.execution),
                          certainty(best.tok_per_sec, family[i]->tok_per_sec));
    lines.push_back(line + ".");
  }
}

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

std::string long_run_line(const ReportRun& run, const Cells& done) {
  const ReportAttempt* a = current_attempt(run);
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

void long_runs(Lines& lines, const std::vector<ReportCell>& cells, const Cells& done) {
  const int64_t usual = usual_steps(cells);
  for (const ReportCell& cell : cells)
    for (const ReportRun* run : cell.runs)
      if (run->run.total_steps > usual)
        if (std::string line = long_run_line(*run, done); !line.empty()) lines.push_back(line);
}

void failures(Lines& lines, const ReportInput& input) {
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

}  // namespace

std::string takeaways_section(const ReportInput& input, const std::vector<ReportCell>& cells,
                              const ReportCell& baseline) {
  const Cells done = completed(cells);
  Lines lines;
  if (done.empty()) lines.push_back("No run has completed yet: there is nothing to conclude.");
  const bool repeats =
      std::any_of(done.begin(), done.end(), [](const ReportCell* cell) { return cell->tok_per_sec.has_interval(); });
  if (!done.empty() && !repeats)
    lines.push_back(
        "There are no completed repeats, so no difference below carries an interval; small ones may be noise.");
  fastest(lines, done);
  memory(lines, done, baseline);
  loss_gap(lines, done, baseline);
  fp8_against_bf16(lines, done);
  execution_modes(lines, done);
  long_runs(lines, cells, done);
  failures(lines, input);
  std::string text = "## Takeaways\n\n";
  for (const std::string& line : lines) text += "- " + line + "\n";
  return text;
}

}  // namespace assay
