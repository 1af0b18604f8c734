// Between the pure state machine (daemon/run_state.h) and the rows of the store.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/run_state.h"
#include "db/changes.h"
#include "wire/messages.h"

namespace assay {

// What an event is about: a run, together with its attempt while that is live or about to be leased.
struct Subject {
  int64_t run_id = 0;
  int64_t experiment_id = 0;
  int64_t attempt_id = 0;  // 0: there is none, or the store has not numbered it yet
  std::string name;
  std::string cell_key;
  std::string worker_id;
  std::vector<std::string> device_ids;
  RunLife life;
  LeaseKey lease() const { return {attempt_id, life.attempt ? life.attempt->lease_epoch : 0}; }
};
Subject subject_of(const RunRow& run);  // without an attempt

RunLife life_of(const RunRow& run);  // without the live attempt
LiveAttempt live_attempt_of(const AttemptRow& row, bool cancel_requested);

// The changes of the store that a transition of `before` means, in order: all of them. Last comes, of an attempt whose
// state stays, what else of it changed. A lost attempt is counted once, with the first change of the run.
ChangeList rows_of(const Subject& before, const Transition& transition);

// An event about the live attempt that the lease names.
RunEvent event_about(const LeaseKey& lease, RunEventKind kind, std::string cause = {});

int64_t timeout_of(const RunRow& run);  // train.timeout_s; 0 = none

}  // namespace assay
