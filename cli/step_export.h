// Steps of runs, page by page, so that a million steps need one page of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>

#include "cli/client.h"

namespace assay {

// Every step of one attempt in order; attempt 0 = the newest that has steps.
Status each_step(Client& client, const v1::Run& run, int64_t attempt,
                 const std::function<void(int64_t attempt, const v1::StepMetrics&)>& sink);

// The columns of the report's steps.csv, and a line of it.
extern const char* const steps_csv_header;
void write_csv_step(std::ostream& out, const std::string& name, int64_t attempt, const v1::StepMetrics& step);

// steps.csv of a whole experiment ("experiment/tag"): every attempt of every run, named as in the report.
Status write_steps_csv(Client& client, const std::string& experiment, std::ostream& out);

}  // namespace assay
