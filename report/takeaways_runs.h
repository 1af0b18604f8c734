// Takeaways about single runs: the long ones and the failed ones.
#pragma once

#include <string>
#include <vector>

#include "report/evidence.h"

namespace assay {

// One sentence for every run with more steps than most cells have: how far it came, whether its losses stayed finite,
// its loss. Then one for each of their cells that completed: its speed against that of a completed cell that differs in
// nothing but being shorter.
void add_long_runs(std::vector<std::string>& lines, const std::vector<ReportCell>& cells, const Evidence& evidence);
// How many runs failed and of what; how many completed after a failed attempt.
void add_failures(std::vector<std::string>& lines, const ReportInput& input);

}  // namespace assay
