// A step as text: the columns of steps.csv and `assay export`.
#pragma once

#include <string>

#include "spec/step_metrics.h"

namespace assay {

// "run,attempt,step,loss,..." with its line break: the first line of every CSV file of steps, and what comes after
// further columns of the caller's.
std::string steps_csv_header();
// A line of it, appended. What was not recorded is empty.
void append_steps_csv(std::string& out, std::string_view run, int64_t attempt, const StepMetrics& metrics);

}  // namespace assay
