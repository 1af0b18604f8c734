#include "daemon/run_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"

namespace assay {
namespace {

Error illegal(std::string message) {
  return Error{ErrorCode::failed_precondition, std::move(message)};
}

std::string or_default(const std::string& cause, std::string_view fallback) {
  return cause.empty() ? std::string(fallback) : cause;
}

// What a reachable attempt's state is, given everything else known about it.
AttemptState reachable_state(const LiveAttempt& a) {
  if (a.stop != StopReason::none) return AttemptState::stopping;
  if (a.phase != Phase::load) return AttemptState::running;
  return a.started ? AttemptState::starting : AttemptState::leased;
}

EventKind kind_of(AttemptState to) {
  switch (to) {
    case AttemptState::leased:
      return EventKind::lease_granted;
    case AttemptState::starting:
      return EventKind::attempt_started;
    case AttemptState::running:
      return EventKind::attempt_running;
    case AttemptState::stopping:
      return EventKind::attempt_stopping;
    case AttemptState::unreachable:
      return EventKind::attempt_unreachable;
    case AttemptState::ended:
      break;
  }
  return EventKind::attempt_ended;
}

// An event of a kind of its own is told even if the state stays.
void move_attempt(Transition& t, AttemptState to, std::string cause, std::optional<EventKind> kind = {}) {
  AttemptState& state = t.next.attempt->state;
  if (state == to && !kind) return;
  t.changes.emplace_back(AttemptStateChange{kind.value_or(kind_of(to)), state, to, std::move(cause)});
  state = to;
}

void move_run(Transition& t, RunState to, EventKind kind, std::string cause) {
  t.changes.emplace_back(RunStateChange{kind, t.next.state, to, std::move(cause)});
  t.next.state = to;
}

void end_attempt(Transition& t, AttemptOutcome outcome, EventKind kind, std::string cause) {
  move_attempt(t, AttemptState::ended, std::move(cause), kind);
  t.next.attempt.reset();
  t.ended = std::move(outcome);
  t.actions = {Action::free_devices};
}

void requeue(Transition& t, int64_t not_before, std::string cause) {
  t.next.not_before = not_before;
  if (not_before > 0) {
    move_run(t, RunState::retry_wait, EventKind::run_retry_wait, std::move(cause));
  } else {
    move_run(t, RunState::queued, EventKind::run_requeued, std::move(cause));
  }
}

void fail_run(Transition& t, const RunPolicy& policy, std::string cause) {
  move_run(t, RunState::failed, EventKind::run_failed, std::move(cause));
  if (policy.on_failure == OnFailure::stop_cell) t.actions.push_back(Action::cancel_cell);
  if (policy.on_failure == OnFailure::stop_all) t.actions.push_back(Action::cancel_experiment);
}

// What became of an attempt that is gone through no fault of the run.
AttemptResult result_of_gone(const LiveAttempt& a, const AttemptOutcome& told) {
  if (!a.started && a.phase == Phase::load) return AttemptResult::not_started;
  const bool stopped = told.result == AttemptResult::stopped || a.stop == StopReason::worker_stopped;
  return stopped ? AttemptResult::stopped : AttemptResult::failed;
}

// The attempt is gone through no fault of the run: again, unless a person wants it cancelled or workers keep dying.
Transition give_back(const RunLife& life, const RunEvent& event, const RunPolicy& policy) {
  Transition t{life};
  AttemptOutcome outcome = event.outcome;
  outcome.result = result_of_gone(*life.attempt, event.outcome);
  outcome.reason = outcome.result == AttemptResult::failed ? FailureReason::worker_lost : FailureReason::none;
  const std::string cause = or_default(event.cause, outcome.error.empty() ? "the worker is gone" : outcome.error);
  if (outcome.error.empty()) outcome.error = cause;
  const bool lost = outcome.result == AttemptResult::failed;
  const bool stopped = outcome.result == AttemptResult::stopped;
  const EventKind kind = lost      ? EventKind::attempt_lost
                         : stopped ? EventKind::attempt_stopped
                                   : EventKind::attempt_not_started;
  end_attempt(t, std::move(outcome), kind, cause);
  if (event.kind != RunEventKind::worker_lost) t.actions.push_back(Action::acknowledge_end);
  t.next.lost_attempts += lost;
  t.next.stopped_attempts += stopped;
  t.next.attempts -= !lost && !stopped;
  if (life.cancel_requested) {
    move_run(t, RunState::cancelled, EventKind::run_cancelled, "cancelled; its worker is gone");
  } else if (lost && life.attempts - life.stopped_attempts >= limits::max_attempts) {
    fail_run(t, policy, fmt::format("lost {} times in {} attempts", t.next.lost_attempts, life.attempts));
  } else {
    requeue(t, 0,
            lost      ? "a lost worker does not use up retries"
            : stopped ? "stopped with its worker, it goes on with the next one"
                      : "it has not started");
  }
  return t;
}

// Attempts that ended by themselves, the live one included.
int64_t own_attempts(const RunLife& life) {
  return life.attempts - life.lost_attempts - life.stopped_attempts;
}

bool may_retry(const RunLife& life, const RetryPolicy& retry, FailureReason reason) {
  return std::find(retry.on.begin(), retry.on.end(), reason) != retry.on.end() &&
         own_attempts(life) < retry.max_attempts && life.attempts - life.stopped_attempts < limits::max_attempts;
}

Result<Transition> on_ended(const RunLife& life, const RunEvent& event, const RunPolicy& policy) {
  const AttemptOutcome& outcome = event.outcome;
  if (outcome.result == AttemptResult::none) return illegal("an attempt cannot end without a result");
  const bool lost = outcome.result == AttemptResult::failed && outcome.reason == FailureReason::worker_lost;
  if (lost || outcome.result == AttemptResult::stopped || outcome.result == AttemptResult::not_started)
    return give_back(life, event, policy);
  Transition t{life};
  if (!life.attempt->started) t.facts.started_at = event.at;  // over so soon that its start was not told
  const std::string cause = or_default(event.cause, outcome_text(outcome));
  end_attempt(t, outcome, EventKind::attempt_ended, cause);
  t.actions.push_back(Action::acknowledge_end);
  if (outcome.result == AttemptResult::completed) {
    move_run(t, RunState::completed, EventKind::run_completed, cause);
  } else if (outcome.result == AttemptResult::cancelled || life.cancel_requested) {
    move_run(t, RunState::cancelled, EventKind::run_cancelled, cause);
  } else if (may_retry(life, policy.retry, outcome.reason)) {
    const int64_t backoff_ms = policy.retry.backoff_s * 1000;
    requeue(t, backoff_ms > 0 ? event.at + backoff_ms : 0,
            fmt::format("{}: retry {} of {}", to_string(outcome.reason), own_attempts(life),
                        policy.retry.max_attempts - 1));
  } else {
    fail_run(t, policy, cause);
  }
  return t;
}

Result<Transition> on_lease(const RunLife& life, const RunEvent& event) {
  if (life.state != RunState::queued)
    return illegal(fmt::format("only a queued run can be leased; it is {}", to_string(life.state)));
  Transition t{life};
  t.next.not_before = 0;
  ++t.next.attempts;
  t.next.attempt = LiveAttempt{.n = t.next.attempts, .lease_epoch = event.lease_epoch};
  move_run(t, RunState::running, EventKind::run_started, event.cause);
  t.changes.emplace_back(AttemptStateChange{EventKind::lease_granted, {}, AttemptState::leased, event.cause});
  t.actions = {Action::send_lease};
  return t;
}

Result<Transition> on_started(const RunLife& life, const RunEvent& event) {
  if (life.attempt->started) return illegal("the attempt has started already");
  Transition t{life};
  LiveAttempt& a = *t.next.attempt;
  a.started = true;
  t.facts.started_at = event.at;
  if (!event.log_path.empty()) t.facts.log_path = event.log_path;
  if (event.resumed_from_step >= 0) t.facts.resumed_from_step = event.resumed_from_step;
  move_attempt(t, a.state == AttemptState::unreachable ? a.state : reachable_state(a), "", EventKind::attempt_started);
  return t;
}

Result<Transition> on_resumed(const RunLife& life, const RunEvent& event) {
  if (!life.attempt->started) return illegal("the attempt has not started");
  if (event.resumed_from_step < 0) return illegal("an attempt resumes from a step");
  Transition t{life};
  t.facts.resumed_from_step = event.resumed_from_step;
  return t;
}

Result<Transition> on_progress(const RunLife& life, const RunEvent& event) {
  if (life.attempt->state == AttemptState::unreachable)
    return illegal("the attempt is unreachable: its worker must come back first");
  Transition t{life};
  LiveAttempt& a = *t.next.attempt;
  a.phase = event.phase;
  // A worker that restarted may look at an old progress file: never from running back to starting.
  const AttemptState to = reachable_state(a);
  if (to > a.state) move_attempt(t, to, fmt::format("phase {}", to_string(event.phase)));
  return t;
}

void request_stop(Transition& t, StopReason reason, std::string cause) {
  t.next.attempt->stop = reason;
  if (t.next.attempt->state == AttemptState::unreachable) return;  // sent when the worker is back
  move_attempt(t, AttemptState::stopping, std::move(cause));
  t.actions.push_back(Action::send_stop);
}

Result<Transition> on_stop(const RunLife& life, const RunEvent& event) {
  if (event.stop == StopReason::none || event.stop == StopReason::cancelled)
    return illegal("a stop needs the reason stalled, timeout or worker_stopped");
  if (life.attempt->state == AttemptState::unreachable) return illegal("an unreachable attempt cannot be told to stop");
  if (life.attempt->stop != StopReason::none)
    return illegal(fmt::format("the attempt is stopping already: {}", to_string(life.attempt->stop)));
  Transition t{life};
  request_stop(t, event.stop, or_default(event.cause, to_string(event.stop)));
  return t;
}

Result<Transition> on_worker_back(const RunLife& life, const RunEvent& event) {
  if (life.attempt->state != AttemptState::unreachable) return illegal("the attempt is not unreachable");
  Transition t{life};
  move_attempt(t, reachable_state(*t.next.attempt), or_default(event.cause, "its worker is back"),
               EventKind::attempt_back);
  if (t.next.attempt->stop != StopReason::none) t.actions.push_back(Action::send_stop);
  return t;
}

Result<Transition> on_cancel(const RunLife& life, const RunEvent& event) {
  if (is_terminal(life.state)) return illegal(fmt::format("it is {} already", to_string(life.state)));
  if (life.cancel_requested) return illegal("it is being cancelled already");
  Transition t{life};
  t.next.cancel_requested = true;
  const std::string cause = or_default(event.cause, "cancel requested");
  if (life.attempt) {
    move_run(t, life.state, EventKind::cancel_requested, cause);
    request_stop(t, StopReason::cancelled, cause);
  } else {
    t.next.not_before = 0;
    move_run(t, RunState::cancelled, EventKind::run_cancelled, cause);
  }
  return t;
}

Result<Transition> on_retry(const RunLife& life, const RunEvent& event) {
  if (life.state != RunState::failed && life.state != RunState::cancelled)
    return illegal(fmt::format("only failed and cancelled runs can be retried; it is {}", to_string(life.state)));
  Transition t{life};
  t.next.cancel_requested = false;
  t.next.not_before = 0;
  move_run(t, RunState::queued, EventKind::run_retried, or_default(event.cause, "retry requested"));
  return t;
}

Result<Transition> on_wait_event(const RunLife& life, const RunEvent& event) {
  Transition t{life};
  if (event.kind == RunEventKind::hold) {
    if (life.state != RunState::queued && life.state != RunState::retry_wait)
      return illegal(fmt::format("only waiting runs can be held; it is {}", to_string(life.state)));
    t.next.not_before = 0;  // whoever releases it means now
    move_run(t, RunState::held, EventKind::run_held, or_default(event.cause, "hold requested"));
    return t;
  }
  if (event.kind == RunEventKind::release) {
    if (life.state != RunState::held)
      return illegal(fmt::format("only held runs can be released; it is {}", to_string(life.state)));
    move_run(t, RunState::queued, EventKind::run_released, or_default(event.cause, "release requested"));
    return t;
  }
  if (life.state != RunState::retry_wait)
    return illegal(fmt::format("it does not wait for a retry; it is {}", to_string(life.state)));
  if (life.not_before > event.at) return illegal("its backoff has not passed");
  t.next.not_before = 0;
  move_run(t, RunState::queued, EventKind::run_requeued, "backoff passed");
  return t;
}

Status check_attempt(const RunLife& life, const RunEvent& event) {
  if (!life.attempt) return illegal(fmt::format("the run is {} and has no live attempt", to_string(life.state)));
  if (life.attempt->lease_epoch != event.lease_epoch)
    return Error{ErrorCode::aborted, fmt::format("lease epoch {} is not the live attempt's, {}", event.lease_epoch,
                                                 life.attempt->lease_epoch)};
  return {};
}

Result<Transition> on_attempt_event(const RunLife& life, const RunEvent& event, const RunPolicy& policy) {
  ASSAY_TRY(check_attempt(life, event));
  switch (event.kind) {
    case RunEventKind::attempt_started:
      return on_started(life, event);
    case RunEventKind::attempt_resumed:
      return on_resumed(life, event);
    case RunEventKind::progress:
      return on_progress(life, event);
    case RunEventKind::stop_requested:
      return on_stop(life, event);
    case RunEventKind::attempt_ended:
      return on_ended(life, event, policy);
    case RunEventKind::worker_back:
      return on_worker_back(life, event);
    case RunEventKind::worker_lost:
      return give_back(life, event, policy);
    case RunEventKind::attempt_refused:
      if (life.attempt->started) return illegal("a started attempt cannot be refused");
      return give_back(life, event, policy);
    case RunEventKind::lease_expired: {
      if (life.attempt->state == AttemptState::unreachable) return illegal("the attempt is unreachable already");
      Transition t{life};
      move_attempt(t, AttemptState::unreachable, or_default(event.cause, "its lease expired"));
      return t;
    }
    default:
      return illegal("not an event about an attempt");
  }
}

}  // namespace

bool uses_policy(RunEventKind kind) {
  return kind == RunEventKind::attempt_ended || kind == RunEventKind::attempt_refused ||
         kind == RunEventKind::worker_lost;
}

Result<Transition> apply(const RunLife& life, const RunEvent& event, const RunPolicy& policy) {
  switch (event.kind) {
    case RunEventKind::lease_granted:
      return on_lease(life, event);
    case RunEventKind::cancel_requested:
      return on_cancel(life, event);
    case RunEventKind::retry_requested:
      return on_retry(life, event);
    case RunEventKind::hold:
    case RunEventKind::release:
    case RunEventKind::backoff_elapsed:
      return on_wait_event(life, event);
    default:
      return on_attempt_event(life, event, policy);
  }
}

}  // namespace assay
