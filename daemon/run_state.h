// The life of one run and its live attempt as a pure function: (state, event) -> (next state, events to store,
// actions). No clock, no store, no network; whoever calls stores `next` and `changes` in one transaction, then does the
// actions, each of which may be done twice without harm. Source: QUEUE design, "States".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "spec/experiment_spec.h"
#include "spec/run_outcome.h"

namespace assay {

struct LiveAttempt {
  int64_t n = 0;            // 1-based within the run
  int64_t lease_epoch = 0;  // events about the attempt must carry it
  AttemptState state = AttemptState::leased;
  Phase phase = Phase::load;
  bool started = false;  // the worker has said that the trainer runs
  StopReason stop = StopReason::none;
  bool operator==(const LiveAttempt&) const = default;
};

// Invariants: `attempt` is set exactly in RunState::running; a waiting run (queued, held, retry_wait) is never
// cancel_requested; attempts goes down only when the live one ends as not_started, whose number the next one gets;
// lost_attempts + stopped_attempts <= attempts.
struct RunLife {
  RunState state = RunState::queued;
  bool cancel_requested = false;
  int64_t attempts = 0;
  int64_t lost_attempts = 0;
  int64_t stopped_attempts = 0;
  int64_t not_before = 0;  // unix ms, of a retry_wait run
  std::optional<LiveAttempt> attempt;
  bool operator==(const RunLife&) const = default;
};

enum class RunEventKind {
  lease_granted,    // lease_epoch: the new attempt's
  attempt_started,  // from here to worker_lost: about the live attempt, lease_epoch must match
  progress,         // phase
  stop_requested,   // stop: not cancelled, which comes from cancel_requested
  attempt_ended,    // outcome
  attempt_refused,  // the worker did not take the lease; outcome.error says why
  lease_expired,    // not heard of for limits::lease_ms: unreachable, which is never a reason to start it again
  worker_back,      // the worker holds the lease still
  worker_lost,      // proof that the attempt is gone
  cancel_requested,
  retry_requested,
  hold,
  release,
  backoff_elapsed,
};
inline constexpr int event_kinds = 14;
std::string_view to_string(RunEventKind);

struct RunEvent {
  RunEventKind kind = RunEventKind::lease_granted;
  int64_t at = 0;  // unix ms
  int64_t lease_epoch = 0;
  Phase phase = Phase::load;
  StopReason stop = StopReason::none;
  AttemptOutcome outcome;
  std::string cause;  // human words for the events table; empty = a default
};

struct RunPolicy {
  RetryPolicy retry;
  OnFailure on_failure = OnFailure::continue_;
};

// A row of the events table. about_attempt: from and to are attempt states, else run states.
struct StateChange {
  bool about_attempt = false;
  std::string kind;
  std::string from;
  std::string to;
  std::string cause;
};

enum class Action {
  send_lease,
  send_stop,        // with next.attempt->stop
  acknowledge_end,  // the worker may forget the attempt
  free_devices,
  cancel_cell,        // every other unfinished run of the cell: on_failure = "stop_cell"
  cancel_experiment,  // every other unfinished run of the experiment: on_failure = "stop_all"
};

struct Transition {
  RunLife next;
  std::vector<StateChange> changes;  // empty: only the phase changed, or nothing visible
  std::vector<Action> actions;
  std::optional<AttemptOutcome> ended;  // set when the live attempt ended: how, as it is to be stored
};

// An event that is not legal in the state is an error that says why: failed_precondition, or aborted for an old epoch.
Result<Transition> apply(const RunLife& life, const RunEvent& event, const RunPolicy& policy);

}  // namespace assay
