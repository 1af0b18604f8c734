// Repeats of the same cell taken together: what comparison and takeaways speak about.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/report.h"
#include "report/statistics.h"

namespace assay {

struct ReportCell {
  std::string name;                    // of its first repeat
  const ReportRun* first = nullptr;    // config and number of steps are those of every repeat, but for the seed
  std::vector<const ReportRun*> runs;  // every repeat, in queue order
  std::vector<const ReportRun*> done;  // those that completed: only they count below
  Estimate tok_per_sec;                // of tail50
  Estimate loss;                       // last loss
  Estimate peak_mem_mib;
  bool completed() const { return !done.empty(); }
};

// In the order of their first run.
std::vector<ReportCell> report_cells(const ReportInput&);
// The cell with a run of that name; null if none.
const ReportCell* find_cell(const std::vector<ReportCell>&, std::string_view run_name);

// Two cells answer the same question when they differ in nothing but these settings (and seeds, names, fault hooks).
enum class Axis { precision, execution, steps };
bool differ_only_in(Axis axis, const ReportCell& a, const ReportCell& b);

}  // namespace assay
