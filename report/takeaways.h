// The section Takeaways: sentences computed from the numbers, never more than these carry.
#pragma once

#include <string>
#include <vector>

#include "report/cells.h"

namespace assay {

std::string takeaways_section(const ReportInput&, const std::vector<ReportCell>& cells, const ReportCell& baseline);

}  // namespace assay
