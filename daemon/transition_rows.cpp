#include "daemon/transition_rows.h"

#include "spec/run_config_toml.h"

namespace assay {

RunLife life_of(const RunRow& run) {
  return RunLife{.state = run.state,
                 .cancel_requested = run.cancel_requested,
                 .attempts = run.attempts,
                 .lost_attempts = run.lost_attempts,
                 .stopped_attempts = run.stopped_attempts,
                 .not_before = run.not_before};
}

LiveAttempt live_attempt_of(const AttemptRow& row, bool cancel_requested) {
  LiveAttempt a{row.n, row.lease_epoch, row.state, row.phase, row.started_at != 0, StopReason::none};
  if (cancel_requested) a.stop = StopReason::cancelled;
  // Why an earlier life of the daemon stopped it is not stored; its worker remembers and keeps the first reason.
  else if (row.state == AttemptState::stopping)
    a.stop = StopReason::stalled;
  return a;
}

ChangeList rows_of(int64_t run_id, int64_t attempt_id, const RunLife& before, const Transition& t) {
  ChangeList list;
  bool first = true;
  for (const StateChange& change : t.changes) {
    if (change.kind == "lease_granted") continue;  // NewAttempt, which only the scheduler can fill
    if (change.about_attempt) {
      AttemptChange row{.attempt_id = attempt_id, .lease_epoch = before.attempt->lease_epoch};
      row.from = *find_word<AttemptState>(change.from);
      row.to = find_word<AttemptState>(change.to);
      if (t.next.attempt && t.next.attempt->phase != before.attempt->phase) row.phase = t.next.attempt->phase;
      if (t.ended) row.outcome = t.ended;
      row.kind = change.kind;
      row.cause = change.cause;
      list.push_back(std::move(row));
      continue;
    }
    RunChange row{.run_id = run_id, .from = *find_word<RunState>(change.from)};
    if (change.to != change.from) row.to = find_word<RunState>(change.to);
    if (t.next.cancel_requested != before.cancel_requested) row.cancel_requested = t.next.cancel_requested;
    if (t.next.state == RunState::retry_wait) row.not_before = t.next.not_before;
    row.count_lost_attempt = first && t.next.lost_attempts > before.lost_attempts;
    row.count_stopped_attempt = first && t.next.stopped_attempts > before.stopped_attempts;
    first = false;
    row.kind = change.kind;
    row.cause = change.cause;
    list.push_back(std::move(row));
  }
  return list;
}

RunEvent event_about(const LeaseKey& lease, RunEventKind kind, std::string cause) {
  RunEvent event{.kind = kind, .lease_epoch = lease.epoch};
  event.cause = std::move(cause);
  return event;
}

int64_t timeout_of(const RunRow& run) {
  return parse_run_config(run.config_toml, "run.toml").config.train.timeout_s;
}

}  // namespace assay
