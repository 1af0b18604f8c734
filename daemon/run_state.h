// The life of one run and its live attempt as a pure function: (state, event) -> (next state, events to store,
// actions). No clock, no store, no network; whoever calls stores `next` and `changes` in one transaction, then does the
// actions, each of which may be done twice without harm. All of it in words: docs/queue.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
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

// From attempt_started to worker_lost they are about the live attempt, whose lease_epoch they must carry.
#define ASSAY_RUN_EVENT_KINDS(X)                                                                 \
  X(lease_granted, "lease_granted", "lease_epoch: the new attempt's, 0 until it is stored")      \
  X(attempt_started, "attempt_started", "log_path, resumed_from_step")                           \
  X(attempt_resumed, "attempt_resumed", "resumed_from_step: of an attempt that has started")     \
  X(progress, "progress", "phase")                                                               \
  X(stop_requested, "stop_requested", "stop: not cancelled, which comes from cancel_requested")  \
  X(attempt_ended, "attempt_ended", "outcome")                                                   \
  X(attempt_refused, "attempt_refused", "the worker did not take the lease; outcome.error: why") \
  X(lease_expired, "lease_expired", "unreachable, which is never a reason to start it again")    \
  X(worker_back, "worker_back", "the worker holds the lease still")                              \
  X(worker_lost, "worker_lost", "proof that the attempt is gone")                                \
  X(cancel_requested, "cancel_requested", "")                                                    \
  X(retry_requested, "retry_requested", "")                                                      \
  X(hold, "hold", "")                                                                            \
  X(release, "release", "")                                                                      \
  X(backoff_elapsed, "backoff_elapsed", "")
ASSAY_WORDS(RunEventKind, "run event", ASSAY_RUN_EVENT_KINDS);

struct RunEvent {
  RunEventKind kind = RunEventKind::lease_granted;
  int64_t at = 0;  // unix ms
  int64_t lease_epoch = 0;
  Phase phase = Phase::load;
  StopReason stop = StopReason::none;
  AttemptOutcome outcome;
  std::string log_path;            // empty: not told
  int64_t resumed_from_step = -1;  // -1: from the beginning, or not told
  std::string cause;               // human words for the events table; empty = a default
};

struct RunPolicy {
  RetryPolicy retry;
  OnFailure on_failure = OnFailure::continue_;
};

// What became of the run and of its attempt, in order: a row of the events table each.
struct RunStateChange {
  EventKind kind = EventKind::run_started;
  RunState from = RunState::queued;
  RunState to = RunState::queued;  // may be `from`: a cancel that waits for its attempt
  std::string cause;
};
struct AttemptStateChange {
  EventKind kind = EventKind::lease_granted;
  std::optional<AttemptState> from;  // nothing: the attempt is new
  AttemptState to = AttemptState::leased;
  std::string cause;
};
using StateChange = std::variant<RunStateChange, AttemptStateChange>;

enum class Action {
  send_lease,
  send_stop,        // with next.attempt->stop
  acknowledge_end,  // the worker may forget the attempt
  free_devices,
  cancel_cell,        // every other unfinished run of the cell: on_failure = "stop_cell"
  cancel_experiment,  // every other unfinished run of the experiment: on_failure = "stop_all"
};

// What an event tells of the live attempt that is stored with it but decides nothing. Nothing: stays as it is.
struct AttemptFacts {
  std::optional<int64_t> started_at;  // unix ms
  std::optional<std::string> log_path;
  std::optional<int64_t> resumed_from_step;
  bool operator==(const AttemptFacts&) const = default;
};

struct Transition {
  RunLife next;
  std::vector<StateChange> changes;  // empty: only the phase or facts changed
  std::vector<Action> actions;
  std::optional<AttemptOutcome> ended;  // set when the live attempt ended: how, as it is to be stored
  AttemptFacts facts;
};

// Whether apply looks at the policy for such an event: only what ends an attempt.
bool uses_policy(RunEventKind);

// An event that is not legal in the state is an error that says why: failed_precondition, or aborted for an old epoch.
Result<Transition> apply(const RunLife& life, const RunEvent& event, const RunPolicy& policy);

}  // namespace assay
