#include "report/takeaways.h"

#include <fmt/core.h>

#include <algorithm>

#include "report/comparison.h"
#include "report/markdown.h"
#include "report/takeaways_runs.h"

namespace assay {
namespace {

using Lines = std::vector<std::string>;
using Cells = std::vector<const ReportCell*>;

// Completed cells and what they are measured against.
struct Evidence {
  Cells done;
  const ReportCell& baseline;
  bool repeats = false;  // some cell has an interval; without any this is said once, at the top

  // What the repeats say about the difference just named, as the end of its sentence.
  std::string certainty(const Estimate& a, const Estimate& b) const {
    switch (compare(a, b)) {
      case Order::not_distinguishable:
        return "; not distinguishable: the 95 % intervals of the repeats overlap";
      case Order::no_repeats:
        return repeats ? " (without repeats of both, so no interval)" : "";
      default:
        return "";
    }
  }
};

Cells completed(const std::vector<ReportCell>& cells) {
  Cells done;
  for (const ReportCell& cell : cells)
    if (cell.completed()) done.push_back(&cell);
  return done;
}

std::string steps_per_run(const ReportCell& cell) {
  return fmt::format("{} steps", cell.first->run.total_steps);
}

void sort_by_speed(Cells& cells) {
  std::stable_sort(cells.begin(), cells.end(),
                   [](const ReportCell* a, const ReportCell* b) { return a->tok_per_sec.mean > b->tok_per_sec.mean; });
}

// The cells whose speed the repeats do not tell from the first one's.
Cells rivals_of_first(const Cells& by_speed) {
  Cells rivals;
  for (size_t i = 1; i < by_speed.size(); ++i)
    if (compare(by_speed[0]->tok_per_sec, by_speed[i]->tok_per_sec) == Order::not_distinguishable)
      rivals.push_back(by_speed[i]);
  return rivals;
}

std::string speed_text(const ReportCell& cell) {
  return fmt::format("{} ({} tok/sec)", md_code(cell.name), estimate_text(cell.tok_per_sec, 0));
}

void fastest(Lines& lines, const Evidence& evidence) {
  Cells done = evidence.done;
  std::erase_if(done, [](const ReportCell* cell) { return cell->tok_per_sec.n == 0 || cell->tok_per_sec.mean <= 0; });
  if (done.empty()) return;
  sort_by_speed(done);
  const ReportCell& first = *done[0];
  if (const Cells rivals = rivals_of_first(done); !rivals.empty()) {
    std::string list;
    for (const ReportCell* rival : rivals) list += (list.empty() ? "" : ", ") + speed_text(*rival);
    lines.push_back(
        fmt::format("Fastest: not distinguishable; {} has the highest mean, but the 95 % intervals of the "
                    "repeats overlap with {}.",
                    speed_text(first), list));
    return;
  }
  std::string line = fmt::format("Fastest: {}", speed_text(first));
  if (done.size() > 1)
    line += fmt::format(", {} the next, {}{}", ratio_text(first.tok_per_sec.mean / done[1]->tok_per_sec.mean),
                        speed_text(*done[1]), evidence.certainty(first.tok_per_sec, done[1]->tok_per_sec));
  lines.push_back(line + ".");
}

void memory(Lines& lines, const Evidence& evidence) {
  const ReportCell& baseline = evidence.baseline;
  const ReportCell* least = nullptr;
  for (const ReportCell* cell : evidence.done)
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
                                        ? evidence.certainty(least->peak_mem_mib, base)
                                        : "")
                      : fmt::format(", the same as the baseline {}", md_code(baseline.name));
  }
  lines.push_back(line + ".");
}

void loss_gap(Lines& lines, const Evidence& evidence) {
  Cells done = evidence.done;
  const ReportCell& baseline = evidence.baseline;
  std::erase_if(done, [&](const ReportCell* cell) { return cell->loss.n == 0 || !same_steps(*cell, baseline); });
  if (done.size() < 2) return;
  const auto [low, high] = std::minmax_element(
      done.begin(), done.end(), [](const ReportCell* a, const ReportCell* b) { return a->loss.mean < b->loss.mean; });
  const double gap = (*high)->loss.mean - (*low)->loss.mean;
  lines.push_back(fmt::format("Loss after {}: from {} ({}) to {} ({}), a gap of {:.4f} ({:.2f} %){}.",
                              steps_per_run(baseline), estimate_text((*low)->loss, 4), md_code((*low)->name),
                              estimate_text((*high)->loss, 4), md_code((*high)->name), gap,
                              100 * gap / (*low)->loss.mean, evidence.certainty((*low)->loss, (*high)->loss)));
}

bool is_fp8(const ReportCell& cell) {
  return cell.first->config.precision == Precision::fp8_noexperts ||
         cell.first->config.precision == Precision::fp8_experts;
}

void fp8_against_bf16(Lines& lines, const Evidence& evidence) {
  bool any_fp8 = false;
  bool any_pair = false;
  for (const ReportCell* fp8 : evidence.done) {
    if (!is_fp8(*fp8)) continue;
    any_fp8 = true;
    for (const ReportCell* bf16 : evidence.done) {
      if (bf16->first->config.precision != Precision::bf16 || !differ_only_in(Axis::precision, *fp8, *bf16)) continue;
      any_pair = true;
      std::string line = fmt::format("FP8 against BF16: {} runs at {} the tok/sec of {}{}", md_code(fp8->name),
                                     ratio_text(fp8->tok_per_sec.mean / bf16->tok_per_sec.mean), md_code(bf16->name),
                                     evidence.certainty(fp8->tok_per_sec, bf16->tok_per_sec));
      if (fp8->loss.n > 0 && bf16->loss.n > 0)
        line += fmt::format("; its last loss differs by {:+.4f} ({:+.2f} %){}", fp8->loss.mean - bf16->loss.mean,
                            100 * (fp8->loss.mean - bf16->loss.mean) / bf16->loss.mean,
                            evidence.certainty(fp8->loss, bf16->loss));
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
void execution_modes(Lines& lines, const Evidence& evidence) {
  std::vector<Cells> families;
  for (const ReportCell* cell : evidence.done) {
    const auto family = std::find_if(families.begin(), families.end(),
                                     [&](const Cells& f) { return differ_only_in(Axis::execution, *f[0], *cell); });
    if (family == families.end())
      families.push_back({cell});
    else
      family->push_back(cell);
  }
  for (Cells& family : families) {
    if (family.size() < 2) continue;
    sort_by_speed(family);
    const ReportCell& best = *family[0];
    std::string line =
        fmt::format("Execution modes, {}, {}: {} ({}) {} {} tok/sec", to_string(best.first->config.precision),
                    steps_per_run(best), md_code(best.name), to_string(best.first->config.execution),
                    rivals_of_first(family).empty() ? "is the fastest at" : "has the highest mean,",
                    estimate_text(best.tok_per_sec, 0));
    for (size_t i = 1; i < family.size(); ++i)
      line += fmt::format("; {} that of {} ({}){}", ratio_text(best.tok_per_sec.mean / family[i]->tok_per_sec.mean),
                          md_code(family[i]->name), to_string(family[i]->first->config.execution),
                          evidence.certainty(best.tok_per_sec, family[i]->tok_per_sec));
    lines.push_back(line + ".");
  }
}

}  // namespace

std::string takeaways_section(const ReportInput& input, const std::vector<ReportCell>& cells,
                              const ReportCell& baseline) {
  Evidence evidence{.done = completed(cells), .baseline = baseline};
  evidence.repeats = std::any_of(evidence.done.begin(), evidence.done.end(),
                                 [](const ReportCell* cell) { return cell->tok_per_sec.has_interval(); });
  Lines lines;
  if (evidence.done.empty())
    lines.push_back("No run has completed yet: there is nothing to conclude.");
  else if (!evidence.repeats)
    lines.push_back(
        "There are no completed repeats, so no difference below carries an interval; small ones may be noise.");
  fastest(lines, evidence);
  memory(lines, evidence);
  loss_gap(lines, evidence);
  fp8_against_bf16(lines, evidence);
  execution_modes(lines, evidence);
  add_long_runs(lines, cells, evidence.done);
  add_failures(lines, input);
  std::string text = "## Takeaways\n\n";
  for (const std::string& line : lines) text += "- " + line + "\n";
  return text;
}

}  // namespace assay
