// The section Comparison: every completed cell against the baseline's.
#pragma once

#include <string>
#include <vector>

#include "report/cells.h"

namespace assay {

// `baseline` is one of `cells`.
std::string comparison_section(const std::vector<ReportCell>& cells, const ReportCell& baseline);

// "0.82x", "781338 ± 1200": shared with the takeaways.
std::string ratio_text(double ratio);
std::string estimate_text(const Estimate& e, int decimals);
// Losses are comparable when both cells made the same number of steps: the schedule depends on it.
bool same_steps(const ReportCell& a, const ReportCell& b);

}  // namespace assay
