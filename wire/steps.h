// The metrics of a step as protobuf and back: apart from the other messages, because they are many.
#pragma once

#include "proto/run.pb.h"
#include "spec/step_metrics.h"

namespace assay {

void fill(v1::StepMetrics& out, const StepMetrics& metrics);
StepMetrics from_proto(const v1::StepMetrics& in);

}  // namespace assay
