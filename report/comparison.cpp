#include "report/comparison.h"

#include <fmt/core.h>

#include <algorithm>

#include "report/markdown.h"

namespace assay {
namespace {

// What the repeats say about one metric. Each metric has a verdict of its own: a difference of losses says nothing
// about that of speeds.
std::string verdict(const Estimate& cell, const Estimate& baseline, const char* less, const char* greater) {
  switch (compare(cell, baseline)) {
    case Order::unknown:
      return "-";
    case Order::not_finite:
      return "not finite";
    case Order::no_repeats:
      return "no repeats";
    case Order::not_distinguishable:
      return "not distinguishable";
    case Order::less:
      return less;
    case Order::greater:
      return greater;
  }
  return "-";
}

std::string difference_text(const Estimate& a, const Estimate& b, int decimals) {
  if (a.n == 0 || b.n == 0) return "-";
  return fmt::format("{:+.{}f}", a.mean - b.mean, decimals);
}

std::string repeats_text(const ReportCell& cell) {
  return cell.done.size() == cell.runs.size() ? fmt::format("{}", cell.done.size())
                                              : fmt::format("{} of {}", cell.done.size(), cell.runs.size());
}

std::string row_of(const ReportCell& cell, const ReportCell& baseline) {
  const bool is_baseline = &cell == &baseline;
  const auto unless = [](bool none, std::string text) { return none ? "-" : text; };
  const bool no_loss = is_baseline || !losses_comparable(cell, baseline);
  return md_row({md_text(cell.name) + (is_baseline ? " (baseline)" : ""), repeats_text(cell),
                 fmt::format("{}", cell.first->run.total_steps),
                 // speed
                 estimate_text(cell.tok_per_sec, 0),
                 unless(is_baseline, ratio_text(cell.tok_per_sec, baseline.tok_per_sec)),
                 unless(is_baseline, verdict(cell.tok_per_sec, baseline.tok_per_sec, "slower", "faster")),
                 // loss
                 estimate_text(cell.loss, 4), unless(no_loss, difference_text(cell.loss, baseline.loss, 4)),
                 unless(no_loss, verdict(cell.loss, baseline.loss, "lower", "higher")),
                 // memory
                 estimate_text(cell.peak_mem_mib, 2),
                 unless(is_baseline, difference_text(cell.peak_mem_mib, baseline.peak_mem_mib, 2)),
                 unless(is_baseline, verdict(cell.peak_mem_mib, baseline.peak_mem_mib, "less", "more"))});
}

std::string loss_note(const std::vector<ReportCell>& cells) {
  const LossChoice choice = choose_loss(completed_runs(cells));
  if (choice.kind == LossKind::validation) return "\n`val_loss` is the validation loss after the last step of a run.\n";
  int64_t least = tail_steps;
  int64_t most = 0;
  for (const ReportCell& cell : cells) {
    if (cell.loss.n == 0) continue;
    least = std::min(least, cell.loss_steps);
    most = std::max(most, cell.loss_steps);
  }
  if (most == 0) return {};
  const std::string window = least < most ? fmt::format("{} to {}", least, most) : fmt::format("{}", most);
  return fmt::format(
      "\n`tail50_loss` is the training loss, the mean of a run's last {} steps. The validation loss is not compared: "
      "{}.\n",
      window, choice.why_not_validation);
}

std::string notes(const std::vector<ReportCell>& cells, const ReportCell& baseline) {
  bool repeats = false;
  bool not_comparable = false;
  std::string missing;
  for (const ReportCell& cell : cells) {
    repeats = repeats || cell.done.size() > 1;
    not_comparable = not_comparable || (cell.completed() && !losses_comparable(cell, baseline));
    if (!cell.completed()) missing += (missing.empty() ? "" : ", ") + md_code(cell.name);
  }
  std::string text =
      repeats
          ? "\nValues after ± are half widths of 95 % t-intervals over the completed repeats of a cell. Each verdict "
            "is about the numbers before it.\n"
          : "\nNo cell has completed repeats: no interval can be given, and small differences may be noise.\n";
  text += loss_note(cells);
  if (not_comparable)
    text += "\nLosses are compared only between cells with the same number of steps on the same data.\n";
  if (!missing.empty()) text += "\nNot compared, because not completed: " + missing + ".\n";
  return text;
}

}  // namespace

std::string ratio_text(const Estimate& a, const Estimate& b) {
  return a.n == 0 || b.n == 0 || b.mean <= 0 ? "-" : fmt::format("{:.2f}x", a.mean / b.mean);
}

std::string estimate_text(const Estimate& e, int decimals) {
  if (e.n == 0) return e.not_finite > 0 ? "not finite" : "-";
  std::string text = fmt::format("{:.{}f}", e.mean, decimals);
  if (e.has_interval()) text += fmt::format(" ± {:.{}f}", e.half_width, decimals);
  if (e.not_finite > 0) text += fmt::format(" ({} more not finite)", e.not_finite);
  return text;
}

std::string comparison_section(const std::vector<ReportCell>& cells, const ReportCell& baseline) {
  std::string text = "## Comparison\n\n";
  if (!baseline.completed())
    return text + fmt::format("The baseline {} has not completed (it is {}): there is nothing to compare with yet.\n",
                              md_code(baseline.name), to_string(baseline.first->run.state));
  const char* loss = baseline.loss_kind == LossKind::validation ? "val_loss" : "tail50_loss";
  text += md_header({"cell", "repeats", "steps", "tok/sec", "ratio", "speed_verdict", loss, "loss_diff", "loss_verdict",
                     "peak_mem_mib", "mem_diff_mib", "mem_verdict"},
                    "lrrrrlrrlrrl");
  text += row_of(baseline, baseline);
  for (const ReportCell& cell : cells)
    if (&cell != &baseline && cell.completed()) text += row_of(cell, baseline);
  return text + notes(cells, baseline);
}

}  // namespace assay
