// Steps of runs, page by page, so that a million steps need one page of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <set>
#include <string>

#include "cli/client.h"
#include "cli/context.h"
#include "spec/step_metrics.h"

namespace assay {

class StepPages {
 public:
  StepPages(Context& context, Client& client) : context_(context), client_(client) {}
  // Every step of one attempt in order; attempt 0 = the newest that has steps. A column of a newer daemon is left out
  // and named once on standard error.
  Status each(const v1::Run& run, int64_t attempt,
              const std::function<void(int64_t attempt, const StepMetrics&)>& sink);

 private:
  Context& context_;
  Client& client_;
  std::set<std::string> unknown_;
};

// steps.csv of a whole experiment ("experiment/tag"): every attempt of every run, named as in the report.
Status write_steps_csv(Context& context, Client& client, const std::string& experiment, std::ostream& out);

}  // namespace assay
