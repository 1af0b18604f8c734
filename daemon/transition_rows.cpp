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

Subject subject_of(const RunRow& run) {
  return Subject{.run_id = run.id,
                 .experiment_id = run.experiment_id,
                 .name = run.name,
                 .cell_key = run.cell_key,
                 .life = life_of(run)};
}

LiveAttempt live_attempt_of(const AttemptRow& row, bool cancel_requested) {
  LiveAttempt a{row.n, row.lease_epoch, row.state, row.phase, row.started_at != 0, row.stop};
  if (cancel_requested) a.stop = StopReason::cancelled;
  return a;
}

namespace {

// What a change of the attempt leaves to be stored of it besides its state.
void add_facts(AttemptChange& row, const LiveAttempt& before, const Transition& t) {
  row.outcome = t.ended;
  row.started_at = t.facts.started_at;
  row.log_path = t.facts.log_path;
  row.resumed_from_step = t.facts.resumed_from_step;
  if (!t.next.attempt) return;
  if (t.next.attempt->phase != before.phase) row.phase = t.next.attempt->phase;
  if (t.next.attempt->stop != before.stop) row.stop = t.next.attempt->stop;
}

}  // namespace

ChangeList rows_of(const Subject& subject, const Transition& t) {
  const RunLife& before = subject.life;
  ChangeList list;
  bool first_of_run = true, attempt_told = false;
  for (const StateChange& change : t.changes) {
    if (const auto* of_attempt = std::get_if<AttemptStateChange>(&change)) {
      attempt_told = true;
      if (!of_attempt->from) {
        list.push_back(NewAttempt{subject.run_id, subject.worker_id, subject.device_ids, of_attempt->cause});
        continue;
      }
      AttemptChange row{.attempt_id = subject.attempt_id, .lease_epoch = before.attempt->lease_epoch};
      row.from = *of_attempt->from;
      row.to = of_attempt->to;
      add_facts(row, *before.attempt, t);
      row.kind = of_attempt->kind;
      row.cause = of_attempt->cause;
      list.push_back(std::move(row));
      continue;
    }
    const auto& of_run = std::get<RunStateChange>(change);
    RunChange row{.run_id = subject.run_id, .from = of_run.from};
    if (of_run.to != of_run.from) row.to = of_run.to;
    if (t.next.cancel_requested != before.cancel_requested) row.cancel_requested = t.next.cancel_requested;
    if (t.next.state == RunState::retry_wait) row.not_before = t.next.not_before;
    row.count_lost_attempt = first_of_run && t.next.lost_attempts > before.lost_attempts;
    row.count_stopped_attempt = first_of_run && t.next.stopped_attempts > before.stopped_attempts;
    first_of_run = false;
    row.kind = of_run.kind;
    row.cause = of_run.cause;
    list.push_back(std::move(row));
  }
  if (before.attempt && t.next.attempt && !attempt_told) {
    AttemptChange quiet{.attempt_id = subject.attempt_id, .lease_epoch = before.attempt->lease_epoch};
    quiet.from = before.attempt->state;
    add_facts(quiet, *before.attempt, t);
    if (quiet.phase || quiet.stop || t.facts != AttemptFacts{}) list.push_back(std::move(quiet));
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
