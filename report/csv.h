// summary.csv and steps.csv.
#pragma once

#include <string>

#include "report/report.h"

namespace assay {

// The ten columns of Run Summary as printed there (empty instead of "-"), then what does not fit into a page.
std::string summary_csv(const ReportInput&);
// One line per observed step of every attempt, full precision. `run` is the name as in Run Summary.
std::string steps_csv(const ReportInput&);

}  // namespace assay
