// Steps on the wire: named columns, one for each field of spec/step_metrics.h. Used by both ends of worker -> daemon
// and daemon -> command line.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "proto/run.pb.h"
#include "spec/step_metrics.h"

namespace assay {

void to_proto(std::span<const StepMetrics> steps, v1::StepColumns& out);

struct ReceivedSteps {
  std::vector<StepMetrics> steps;
  // Columns that this program does not know: the sender is newer. They are left out, and whoever reads says so once.
  std::vector<std::string> unknown;
};
// A column that is missing leaves its field not_recorded. invalid_argument, named: a column that every step has is
// missing, has another type or another number of values than there are steps, or comes twice.
Result<ReceivedSteps> from_proto(const v1::StepColumns& in);

}  // namespace assay
