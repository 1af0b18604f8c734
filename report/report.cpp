#include "report/report.h"

#include <fmt/core.h>

#include "base/clock.h"
#include "report/cells.h"
#include "report/comparison.h"
#include "report/csv.h"
#include "report/markdown.h"
#include "report/sections.h"
#include "report/takeaways.h"

namespace assay {
namespace {

std::string head(const ReportInput& input) {
  return fmt::format("# {} Progress\n\nGenerated at: {}\n\nExperiment: {}, tag {}\n\nHome: {}\n\n",
                     md_text(input.experiment.name), format_local_time(input.now), md_code(input.experiment.name),
                     md_code(input.experiment.tag), md_code(input.home));
}

// Nothing is selected by a name that no run has; a baseline in the spec that was excluded falls back to the first run.
Result<const ReportCell*> find_baseline(const ReportInput& input, const std::vector<ReportCell>& cells,
                                        std::string_view asked) {
  if (!asked.empty()) {
    if (const ReportCell* cell = find_cell(cells, asked)) return cell;
    return Error{ErrorCode::not_found,
                 fmt::format("no run of {} (tag {}) is named '{}'; choose the baseline from `assay ls --tag {}`",
                             input.experiment.name, input.experiment.tag, asked, input.experiment.tag)};
  }
  if (const ReportCell* cell = find_cell(cells, input.experiment.baseline)) return cell;
  return cells.empty() ? nullptr : &cells.front();
}

}  // namespace

Result<ReportFiles> build_report(const ReportInput& input, std::string_view baseline) {
  const std::vector<ReportCell> cells = report_cells(input);
  ASSAY_ASSIGN(const ReportCell* base, find_baseline(input, cells, baseline));
  ReportFiles files;
  files.report_md = head(input) + summary_section(input) + "\n" + queue_section(input) + "\n";
  if (base)
    files.report_md += comparison_section(cells, *base) + "\n" + failures_section(input) + "\n" +
                       takeaways_section(input, cells, *base) + "\n";
  else
    files.report_md += "The experiment has no runs.\n\n";
  files.report_md += artifacts_section(input);
  files.summary_csv = summary_csv(input);
  files.steps_csv = steps_csv(input);
  return files;
}

}  // namespace assay
