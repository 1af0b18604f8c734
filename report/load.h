// Fills the report's input from the store.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "report/report.h"

namespace assay {

class RunStore;
class MetricStore;

// `tag` empty = the newest experiment. `now` in unix ms.
Result<ReportInput> load_report(RunStore&, MetricStore&, const std::string& tag, int64_t now, const std::string& home);

}  // namespace assay
