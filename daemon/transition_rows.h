// Between the pure state machine (daemon/run_state.h) and the rows of the store.
#pragma once

#include <cstdint>
#include <string>

#include "daemon/run_state.h"
#include "db/changes.h"
#include "wire/messages.h"

namespace assay {

RunLife life_of(const RunRow& run);  // without the live attempt
LiveAttempt live_attempt_of(const AttemptRow& row, bool cancel_requested);

// The changes of the store that a transition from `before` means, in order; last, of an attempt whose state stays, what
// else of it changed. The row of a new attempt is left out: only
// the scheduler knows its worker and devices. A lost attempt is counted once, with the first change of the run.
ChangeList rows_of(int64_t run_id, int64_t attempt_id, const RunLife& before, const Transition& transition);

// An event about the live attempt that the lease names.
RunEvent event_about(const LeaseKey& lease, RunEventKind kind, std::string cause = {});

int64_t timeout_of(const RunRow& run);  // train.timeout_s; 0 = none

}  // namespace assay
