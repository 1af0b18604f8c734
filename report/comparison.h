// The section Comparison: every completed cell against the baseline's.
#pragma once

#include <string>
#include <vector>

#include "report/cells.h"

namespace assay {

// `baseline` is one of `cells`.
std::string comparison_section(const std::vector<ReportCell>& cells, const ReportCell& baseline);

// "0.82x" of two means, "-" where there is none; "781338 ± 1200". Shared with the takeaways.
std::string ratio_text(const Estimate& a, const Estimate& b);
std::string estimate_text(const Estimate& e, int decimals);

}  // namespace assay
