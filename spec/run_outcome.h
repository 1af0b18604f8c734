// How one attempt ended, as the trainer and the worker saw it.
#pragma once

#include <cstdint>
#include <string>

#include "spec/words.h"

namespace assay {

struct AttemptOutcome {
  AttemptResult result = AttemptResult::none;
  FailureReason reason = FailureReason::none;
  std::string error;      // one line first, details after
  std::string operation;  // engine errors: the op that failed
  std::string tensor;     // engine errors: the first tensor concerned
  int64_t step = -1;      // the step it happened in, -1 = before the first
  int exit_code = -1;     // -1 = did not exit
  int signal = 0;         // 0 = no signal
  double peak_mem_mib = 0;
  std::string log_tail;
};

}  // namespace assay
