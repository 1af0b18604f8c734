// The sections that list what happened: Run Summary, Queue Status, Failures, Artifacts.
#pragma once

#include <string>

#include "report/report.h"

namespace assay {

std::string summary_section(const ReportInput&);
std::string queue_section(const ReportInput&);
std::string failures_section(const ReportInput&);
std::string artifacts_section(const ReportInput&);

}  // namespace assay
