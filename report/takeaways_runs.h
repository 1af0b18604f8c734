// Takeaways about single runs: the long ones and the failed ones.
#pragma once

#include <string>
#include <vector>

#include "report/cells.h"

namespace assay {

// One sentence for every run with more steps than most cells have: how far it came, whether its losses stayed finite,
// and its speed against the completed cell of `done` that differs in nothing but being shorter.
void add_long_runs(std::vector<std::string>& lines, const std::vector<ReportCell>& cells,
                   const std::vector<const ReportCell*>& done);
// How many runs failed and of what; how many completed after a failed attempt.
void add_failures(std::vector<std::string>& lines, const ReportInput& input);

}  // namespace assay
