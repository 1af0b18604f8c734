// Repeats of the same cell taken together: what comparison and takeaways speak about.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/loss.h"
#include "report/report.h"
#include "report/statistics.h"

namespace assay {

struct ReportCell {
  std::string name;                         // of its first repeat
  const ReportRun* first = nullptr;         // config and number of steps are those of every repeat, but for the seed
  std::vector<const ReportRun*> runs;       // every repeat, in queue order
  std::vector<const ReportRun*> done;       // those that completed: only they count below
  Estimate tok_per_sec;                     // of tail50
  LossKind loss_kind = LossKind::training;  // the same for every cell of a report
  int64_t loss_steps = 0;                   // of RunLoss; of repeats that differ the fewest
  Estimate loss;
  Estimate peak_mem_mib;
  bool completed() const { return !done.empty(); }
};

// In the order of their first run.
std::vector<ReportCell> report_cells(const ReportInput&);
// The completed runs of all of them: what the choice of the loss depends on.
std::vector<const ReportRun*> completed_runs(const std::vector<ReportCell>&);
// Losses are compared where they are of the same text after the same number of steps: the schedule depends on the
// number, and another corpus may have other tokens.
bool losses_comparable(const ReportCell& a, const ReportCell& b);
// The cell with a run of that name; null if none.
const ReportCell* find_cell(const std::vector<ReportCell>&, std::string_view run_name);

// Two cells answer the same question when they differ in nothing but these settings (and seeds, names, fault hooks).
enum class Axis { precision, execution, steps };
bool differ_only_in(Axis axis, const ReportCell& a, const ReportCell& b);

}  // namespace assay
