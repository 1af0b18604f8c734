// How an attempt ended, derived from everything the worker knows about it. No process, no clock: a function of facts.
#pragma once

#include <optional>
#include <string>

#include "base/process.h"
#include "spec/run_outcome.h"

namespace assay {

struct EndFacts {
  std::optional<AttemptOutcome> result;       // what the trainer left as its last act
  std::string result_problem;                 // why there is none although there should be: the file is damaged
  std::optional<ExitStatus> exit;             // empty: it was not our child (the worker had been restarted)
  StopReason stop_reason = StopReason::none;  // what it was asked to stop for
  bool killed_by_us = false;                  // SIGKILL after the grace period
  bool host_restarted = false;                // the host's boot id is not the one the trainer was started under
  bool died_unseen = false;                   // it ended while no worker was there
  int64_t timeout_s = 0;
  Phase phase = Phase::load;
  std::string log_tail;
};

// A run that completed before a stop reached it is completed. Otherwise a stop decides, then the trainer's own word,
// then the signal or the exit code. `step` of an end that the trainer did not describe is left at -1.
AttemptOutcome describe_end(const EndFacts&);

}  // namespace assay
