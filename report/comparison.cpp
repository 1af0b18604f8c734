#include "report/comparison.h"

#include <fmt/core.h>

#include "report/markdown.h"

namespace assay {
namespace {

const char* verdict(Order order) {
  switch (order) {
    case Order::unknown:
      return "-";
    case Order::no_repeats:
      return "no repeats";
    case Order::not_distinguishable:
      return "not distinguishable";
    case Order::less:
      return "slower";
    case Order::greater:
      return "faster";
  }
  return "-";
}

std::string difference_text(const Estimate& a, const Estimate& b, int decimals) {
  if (a.n == 0 || b.n == 0) return "-";
  return fmt::format("{:+.{}f}", a.mean - b.mean, decimals);
}

std::string row_of(const ReportCell& cell, const ReportCell& baseline) {
  const bool is_baseline = &cell == &baseline;
  const bool comparable = !is_baseline && same_steps(cell, baseline);
  return md_row(
      {md_text(cell.name) + (is_baseline ? " (baseline)" : ""), fmt::format("{}", cell.done.size()),
       fmt::format("{}", cell.first->run.total_steps), estimate_text(cell.tok_per_sec, 0),
       is_baseline || baseline.tok_per_sec.mean <= 0 ? "-"
                                                     : ratio_text(cell.tok_per_sec.mean / baseline.tok_per_sec.mean),
       is_baseline ? "-" : verdict(compare(cell.tok_per_sec, baseline.tok_per_sec)), estimate_text(cell.loss, 4),
       comparable ? difference_text(cell.loss, baseline.loss, 4) : "-", estimate_text(cell.peak_mem_mib, 2),
       is_baseline ? "-" : difference_text(cell.peak_mem_mib, baseline.peak_mem_mib, 2)});
}

std::string notes(const std::vector<ReportCell>& cells, const ReportCell& baseline) {
  bool repeats = false;
  bool other_steps = false;
  std::string missing;
  for (const ReportCell& cell : cells) {
    repeats = repeats || cell.tok_per_sec.has_interval();
    other_steps = other_steps || (cell.completed() && !same_steps(cell, baseline));
    if (!cell.completed()) missing += (missing.empty() ? "" : ", ") + md_code(cell.name);
  }
  std::string text =
      repeats ? "\nValues after ± are half widths of 95 % t-intervals over the completed repeats of a cell.\n"
              : "\nNo cell has completed repeats: no interval can be given, and small differences may be noise.\n";
  if (other_steps) text += "\nLosses are compared only between cells with the same number of steps.\n";
  if (!missing.empty()) text += "\nNot compared, because not completed: " + missing + ".\n";
  return text;
}

}  // namespace

std::string ratio_text(double ratio) {
  return fmt::format("{:.2f}x", ratio);
}

std::string estimate_text(const Estimate& e, int decimals) {
  if (e.n == 0) return "-";
  if (!e.has_interval()) return fmt::format("{:.{}f}", e.mean, decimals);
  return fmt::format("{:.{}f} ± {:.{}f}", e.mean, decimals, e.half_width, decimals);
}

bool same_steps(const ReportCell& a, const ReportCell& b) {
  return a.first->run.total_steps == b.first->run.total_steps;
}

std::string comparison_section(const std::vector<ReportCell>& cells, const ReportCell& baseline) {
  std::string text = "## Comparison\n\n";
  if (!baseline.completed())
    return text + fmt::format("The baseline {} has not completed (it is {}): there is nothing to compare with yet.\n",
                              md_code(baseline.name), to_string(baseline.first->run.state));
  text += md_header({"cell", "repeats", "steps", "tok/sec", "ratio", "verdict", "last_loss", "loss_diff",
                     "peak_mem_mib", "mem_diff_mib"},
                    "lrrrrlrrrr");
  text += row_of(baseline, baseline);
  for (const ReportCell& cell : cells)
    if (&cell != &baseline && cell.completed()) text += row_of(cell, baseline);
  return text + notes(cells, baseline);
}

}  // namespace assay
