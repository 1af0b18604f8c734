#include "report/takeaways.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

#include "report/comparison.h"
#include "report/evidence.h"
#include "report/markdown.h"
#include "report/takeaways_runs.h"

namespace assay {
namespace {

using Lines = std::vector<std::string>;

std::string steps_per_run(const ReportCell& cell) {
  return fmt::format("{} steps", cell.first->run.total_steps);
}

// " (1.23 %)" of a difference; nothing where there is no whole.
std::string percent(double part, double whole) {
  return whole > 0 ? fmt::format(" ({:.2f} %)", 100 * part / whole) : "";
}
std::string signed_percent(double part, double whole) {
  return whole > 0 ? fmt::format(" ({:+.2f} %)", 100 * part / whole) : "";
}

void sort_by_speed(Cells& cells) {
  std::stable_sort(cells.begin(), cells.end(),
                   [](const ReportCell* a, const ReportCell* b) { return a->tok_per_sec.mean > b->tok_per_sec.mean; });
}

using Metric = Estimate ReportCell::*;

// The cells that the repeats do not tell from the first one in this metric.
Cells rivals_of_first(const Cells& sorted, Metric metric) {
  Cells rivals;
  for (size_t i = 1; i < sorted.size(); ++i)
    if (compare(sorted[0]->*metric, sorted[i]->*metric) == Order::not_distinguishable) rivals.push_back(sorted[i]);
  return rivals;
}

std::string list_of(const Cells& cells, Metric metric, int decimals, const char* unit) {
  std::string list;
  for (const ReportCell* cell : cells)
    list += fmt::format("{}{} ({} {})", list.empty() ? "" : ", ", md_code(cell->name),
                        estimate_text(cell->*metric, decimals), unit);
  return list;
}

std::string speed_text(const ReportCell& cell) {
  return list_of({&cell}, &ReportCell::tok_per_sec, 0, "tok/sec");
}

void fastest(Lines& lines, const Evidence& evidence) {
  Cells done = evidence.done;
  std::erase_if(done, [](const ReportCell* cell) { return cell->tok_per_sec.n == 0 || cell->tok_per_sec.mean <= 0; });
  if (done.empty()) return;
  sort_by_speed(done);
  const ReportCell& first = *done[0];
  if (const Cells rivals = rivals_of_first(done, &ReportCell::tok_per_sec); !rivals.empty()) {
    lines.push_back(
        fmt::format("Fastest: not distinguishable; {} has the highest mean, but the 95 % intervals of the "
                    "repeats overlap with {}.",
                    speed_text(first), list_of(rivals, &ReportCell::tok_per_sec, 0, "tok/sec")));
    return;
  }
  std::string line = fmt::format("Fastest: {}", speed_text(first));
  if (done.size() > 1)
    line += fmt::format(", {} the next, {}{}", ratio_text(first.tok_per_sec, done[1]->tok_per_sec),
                        speed_text(*done[1]), evidence.certainty(first.tok_per_sec, done[1]->tok_per_sec));
  lines.push_back(line + ".");
}

// What the lowest peak saves against the baseline, as the end of its sentence.
std::string memory_saved(const ReportCell& least, const Evidence& evidence) {
  const ReportCell& baseline = evidence.baseline;
  const Estimate& base = baseline.peak_mem_mib;
  if (&least == &baseline)
    return fmt::format("; {} is the baseline: nothing saves memory against it", md_code(baseline.name));
  if (base.n == 0) return "";
  const double saved = base.mean - least.peak_mem_mib.mean;
  return fmt::format(": {:.2f} MiB ({:.1f} %) less than the baseline {}{}", saved, 100 * saved / base.mean,
                     md_code(baseline.name), evidence.certainty(least.peak_mem_mib, base));
}

void memory(Lines& lines, const Evidence& evidence) {
  Cells done = evidence.done;
  std::erase_if(done, [](const ReportCell* cell) { return cell->peak_mem_mib.n == 0; });
  if (done.empty()) return;
  std::stable_sort(done.begin(), done.end(), [](const ReportCell* a, const ReportCell* b) {
    return a->peak_mem_mib.mean < b->peak_mem_mib.mean;
  });
  // Memory is planned, so that several cells often have the very same peak.
  const auto equal = [&](const ReportCell* cell) { return cell->peak_mem_mib.mean == done[0]->peak_mem_mib.mean; };
  Cells least;
  std::copy_if(done.begin(), done.end(), std::back_inserter(least), equal);
  Cells rivals = rivals_of_first(done, &ReportCell::peak_mem_mib);
  std::erase_if(rivals, equal);
  if (!rivals.empty()) {
    lines.push_back(fmt::format(
        "Memory: the lowest peak is not distinguishable; {} has the lowest mean, but the 95 % intervals of the repeats "
        "overlap with {}.",
        list_of(least, &ReportCell::peak_mem_mib, 2, "MiB"), list_of(rivals, &ReportCell::peak_mem_mib, 2, "MiB")));
    return;
  }
  std::string names;
  for (const ReportCell* cell : least) names += (names.empty() ? "" : ", ") + md_code(cell->name);
  const auto baseline = std::find(least.begin(), least.end(), &evidence.baseline);
  lines.push_back(fmt::format("Memory: {} {} the lowest peak, {} MiB{}.", names, least.size() > 1 ? "have" : "has",
                              estimate_text(least[0]->peak_mem_mib, 2),
                              memory_saved(baseline == least.end() ? *least[0] : **baseline, evidence)));
}

void loss_gap(Lines& lines, const Evidence& evidence) {
  const ReportCell& baseline = evidence.baseline;
  Cells done;
  std::string not_finite;
  for (const ReportCell* cell : evidence.done) {
    if (!losses_comparable(*cell, baseline)) continue;
    if (cell->loss.n > 0) done.push_back(cell);
    if (cell->loss.not_finite > 0) not_finite += (not_finite.empty() ? "" : ", ") + md_code(cell->name);
  }
  if (done.size() < 2) return;
  const auto [low, high] = std::minmax_element(
      done.begin(), done.end(), [](const ReportCell* a, const ReportCell* b) { return a->loss.mean < b->loss.mean; });
  const double gap = (*high)->loss.mean - (*low)->loss.mean;
  const std::string window = loss_window(baseline.loss_kind, baseline.loss_steps);
  std::string line =
      fmt::format("{} after {}{}: from {} ({}) to {} ({}), a gap of {:.4f}{}{}",
                  baseline.loss_kind == LossKind::validation ? "Validation loss" : "Training loss",
                  steps_per_run(baseline), window.empty() ? "" : ", " + window, estimate_text((*low)->loss, 4),
                  md_code((*low)->name), estimate_text((*high)->loss, 4), md_code((*high)->name), gap,
                  percent(gap, (*low)->loss.mean), evidence.certainty((*low)->loss, (*high)->loss));
  if (!not_finite.empty()) line += fmt::format("; not finite in {}", not_finite);
  lines.push_back(line + ".");
}

bool is_fp8(const ReportCell& cell) {
  return cell.first->config.precision == Precision::fp8_noexperts ||
         cell.first->config.precision == Precision::fp8_experts;
}

// Three metrics, each with what its own repeats say.
std::string pair_text(const ReportCell& fp8, const ReportCell& bf16, const Evidence& evidence) {
  std::string line = fmt::format("FP8 against BF16: {} runs at {} the tok/sec of {}{}", md_code(fp8.name),
                                 ratio_text(fp8.tok_per_sec, bf16.tok_per_sec), md_code(bf16.name),
                                 evidence.certainty(fp8.tok_per_sec, bf16.tok_per_sec));
  if (fp8.loss.n > 0 && bf16.loss.n > 0 && losses_comparable(fp8, bf16)) {
    const double difference = fp8.loss.mean - bf16.loss.mean;
    const std::string window = loss_window(fp8.loss_kind, fp8.loss_steps);
    line += fmt::format("; its {}{} differs by {:+.4f}{}{}", loss_name(fp8.loss_kind),
                        window.empty() ? "" : ", " + window + ",", difference,
                        signed_percent(difference, bf16.loss.mean), evidence.certainty(fp8.loss, bf16.loss));
  } else if (fp8.loss.not_finite + bf16.loss.not_finite > 0) {
    line += fmt::format("; the {} is not finite", loss_name(fp8.loss_kind));
  }
  if (fp8.peak_mem_mib.n > 0 && bf16.peak_mem_mib.n > 0)
    line += fmt::format("; its peak memory by {:+.2f} MiB{}", fp8.peak_mem_mib.mean - bf16.peak_mem_mib.mean,
                        evidence.certainty(fp8.peak_mem_mib, bf16.peak_mem_mib));
  return line + ".";
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
      lines.push_back(pair_text(*fp8, *bf16, evidence));
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
    if (cell->tok_per_sec.n == 0) continue;
    const auto family = std::find_if(families.begin(), families.end(),
                                     [&](const Cells& f) { return differ_only_in(Axis::execution, *f[0], *cell); });
    if (family == families.end())
      families.push_back({cell});
    else
      family->push_back(cell);
  }
  for (Cells& family : families) {
    sort_by_speed(family);
    const ReportCell& best = *family[0];
    // Cells of one mode differ in something else, in their tiling or capacity: no answer to this question.
    const auto same_mode = [&](const ReportCell* c) {
      return c->first->config.execution == best.first->config.execution;
    };
    family.erase(std::remove_if(family.begin() + 1, family.end(), same_mode), family.end());
    if (family.size() < 2) continue;
    const bool fastest = rivals_of_first(family, &ReportCell::tok_per_sec).empty();
    std::string line =
        fmt::format("Execution modes, {}, {}: {} ({}) {} {} tok/sec", to_string(best.first->config.precision),
                    steps_per_run(best), md_code(best.name), to_string(best.first->config.execution),
                    fastest ? "is the fastest at" : "has the highest mean,", estimate_text(best.tok_per_sec, 0));
    for (size_t i = 1; i < family.size(); ++i)
      line += fmt::format("; {} that of {} ({}){}", ratio_text(best.tok_per_sec, family[i]->tok_per_sec),
                          md_code(family[i]->name), to_string(family[i]->first->config.execution),
                          evidence.certainty(best.tok_per_sec, family[i]->tok_per_sec));
    lines.push_back(line + ".");
  }
}

}  // namespace

std::string takeaways_section(const ReportInput& input, const std::vector<ReportCell>& cells,
                              const ReportCell& baseline) {
  const Evidence evidence(cells, baseline);
  Lines lines;
  if (evidence.done.empty())
    lines.push_back("No run has completed yet: there is nothing to conclude.");
  else if (!evidence.repeats)
    lines.push_back(
        "There are no completed repeats, so no difference below carries an interval; small ones may be noise.");
  else
    lines.push_back("\"Not distinguishable\" means that the 95 % intervals of the repeats overlap.");
  fastest(lines, evidence);
  memory(lines, evidence);
  loss_gap(lines, evidence);
  fp8_against_bf16(lines, evidence);
  execution_modes(lines, evidence);
  add_long_runs(lines, cells, evidence);
  add_failures(lines, input);
  std::string text = "## Takeaways\n\n";
  for (const std::string& line : lines) text += "- " + line + "\n";
  return text;
}

}  // namespace assay
