// What the takeaways may rest on: completed cells, and what their repeats say about a difference.
#pragma once

#include <string>
#include <vector>

#include "report/cells.h"

namespace assay {

using Cells = std::vector<const ReportCell*>;

struct Evidence {
  Evidence(const std::vector<ReportCell>& cells, const ReportCell& baseline);
  Cells done;  // completed, in their order
  const ReportCell& baseline;
  bool repeats = false;  // some cell has them; where none has, the takeaways say so once and certainty() is silent

  // What the repeats say about the difference just named, to follow it in brackets; empty where they tell the two
  // apart. The two are of the metric that the difference is of, never of another.
  std::string certainty(const Estimate& a, const Estimate& b) const;
};

}  // namespace assay
