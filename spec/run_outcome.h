// How one attempt ended, as the trainer and the worker saw it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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
  bool operator==(const AttemptOutcome&) const = default;
};

// --- the words of an outcome for people: the same in the feed, the command line, the report and the logs
// ---------------

// The first line of an error, and everything after it; either may be empty.
std::string_view error_headline(std::string_view error);
std::string_view error_details(std::string_view error);
// "out_of_memory: the plan needs ...": a failure in one line. `reason` is the word.
std::string failure_text(std::string_view reason, std::string_view error);
// "completed", "failed: out_of_memory: the plan needs ...".
std::string outcome_text(const AttemptOutcome&);

struct OutcomeFact {
  std::string_view name;
  std::string value;
  bool foreign = false;  // the value is text from the engine: any character may be in it
};
// What is known of a failure beside reason, error and log, in the order in which it is shown: operation, tensor, step,
// and signal or exit code.
std::vector<OutcomeFact> failure_facts(const AttemptOutcome&);

}  // namespace assay
