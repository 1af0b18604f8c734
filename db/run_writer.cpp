#include "db/run_writer.h"

#include <fmt/core.h>

#include <cmath>

#include "base/home.h"
#include "base/limits.h"
#include "base/utf8.h"

namespace assay {

namespace {

Error aborted(std::string message) {
  return Error{ErrorCode::aborted, std::move(message)};
}
Error not_found(std::string message) {
  return Error{ErrorCode::not_found, std::move(message)};
}
Error without_kind(std::string_view what, int64_t id) {
  return Error{ErrorCode::invalid_argument, fmt::format("a change of {} {} needs the kind of its event", what, id)};
}
Error precondition(std::string message) {
  return Error{ErrorCode::failed_precondition, std::move(message)};
}

}  // namespace

Status RunWriter::apply(const RunChange& change) {
  if (!change.kind) return without_kind("run", change.run_id);
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT experiment_id, state FROM runs WHERE id = ?"));
  ASSAY_ASSIGN(bool row, found.bind(change.run_id).step());
  if (!row) return not_found(fmt::format("there is no run {}", change.run_id));
  int64_t experiment_id = found.integer(0);
  std::string state = found.text(1);
  if (state != to_string(change.from)) {
    return aborted(
        fmt::format("run {} is {}, not {}: it changed meanwhile", change.run_id, state, to_string(change.from)));
  }
  RunState to = change.to.value_or(change.from);
  std::optional<int64_t> finished_at;
  if (is_terminal(to)) finished_at = clock_.unix_ms();
  std::optional<int64_t> not_before = change.not_before;
  if (!not_before && to != RunState::retry_wait) not_before = 0;
  ASSAY_TRY(db_.run(
      "UPDATE runs SET state = ?2, finished_at = CASE WHEN ?3 IS NULL OR finished_at IS NULL THEN ?3 ELSE finished_at "
      "END, not_before = coalesce(?4, not_before), cancel_requested = coalesce(?5, cancel_requested), "
      "lost_attempts = lost_attempts + ?6, stopped_attempts = stopped_attempts + ?7 WHERE id = ?1",
      change.run_id, to_string(to), finished_at, not_before, change.cancel_requested, change.count_lost_attempt,
      change.count_stopped_attempt));
  EventRow event;
  event.experiment_id = experiment_id;
  event.run_id = change.run_id;
  event.kind = *change.kind;
  event.from_state = to_string(change.from);
  event.to_state = to_string(to);
  event.cause = change.cause;
  return events_.write(event);
}

Result<AttemptRow> RunWriter::add(const NewAttempt& change) {
  ASSAY_ASSIGN(auto run, db_.prepare("SELECT experiment_id, state, attempts FROM runs WHERE id = ?"));
  ASSAY_ASSIGN(bool row, run.bind(change.run_id).step());
  if (!row) return not_found(fmt::format("there is no run {}", change.run_id));
  if (run.text(1) != to_string(RunState::running)) {
    return precondition(fmt::format("run {} is {}: only a running run gets an attempt", change.run_id, run.text(1)));
  }
  ASSAY_ASSIGN(int64_t live,
               db_.integer("SELECT id FROM attempts WHERE run_id = ? AND state <> 'ended'", change.run_id));
  if (live != 0) return aborted(fmt::format("run {} has attempt {} still alive", change.run_id, live));
  ASSAY_ASSIGN(const bool known, fleet_.has_worker(change.worker_id));
  if (!known) return not_found(fmt::format("there is no worker {}", change.worker_id));

  AttemptRow attempt;
  attempt.run_id = change.run_id;
  attempt.n = run.integer(2) + 1;
  ASSAY_ASSIGN(attempt.lease_epoch, store_.next_lease_epoch());
  attempt.worker_id = change.worker_id;
  attempt.created_at = clock_.unix_ms();
  ASSAY_TRY(db_.run("UPDATE runs SET attempts = ? WHERE id = ?", attempt.n, attempt.run_id));
  ASSAY_TRY(
      db_.run("INSERT INTO attempts (run_id, n, lease_epoch, worker_id, state, phase, created_at) "
              "VALUES (?, ?, ?, ?, 'leased', 'load', ?)",
              attempt.run_id, attempt.n, attempt.lease_epoch, attempt.worker_id, attempt.created_at));
  attempt.id = db_.last_insert_id();
  ASSAY_TRY(fleet_.allocate(attempt, change.device_ids));

  EventRow event;
  event.experiment_id = run.integer(0);
  event.run_id = attempt.run_id;
  event.attempt_id = attempt.id;
  event.kind = EventKind::lease_granted;
  event.to_state = to_string(AttemptState::leased);
  event.cause = change.cause;
  ASSAY_TRY(events_.write(event));
  return attempt;
}

Status RunWriter::apply(const AttemptChange& change) {
  if (change.to && !change.kind) return without_kind("attempt", change.attempt_id);
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT a.lease_epoch, a.state, a.run_id, r.experiment_id FROM attempts a "
                                       "JOIN runs r ON r.id = a.run_id WHERE a.id = ?"));
  ASSAY_ASSIGN(bool row, found.bind(change.attempt_id).step());
  if (!row) return not_found(fmt::format("there is no attempt {}", change.attempt_id));
  if (found.integer(0) != change.lease_epoch) {
    return aborted(fmt::format("attempt {} has lease epoch {}, not {}: the lease is not this worker's",
                               change.attempt_id, found.integer(0), change.lease_epoch));
  }
  std::string state = found.text(1);
  if (state != to_string(change.from)) {
    return aborted(fmt::format("attempt {} is {}, not {}: it changed meanwhile", change.attempt_id, state,
                               to_string(change.from)));
  }
  AttemptState to = change.to.value_or(change.from);
  if ((to == AttemptState::ended) != change.outcome.has_value()) {
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("attempt {}: an outcome comes with the end of an attempt, and only then", change.attempt_id)};
  }
  AttemptOutcome outcome = change.outcome.value_or(AttemptOutcome{});
  std::optional<int64_t> finished_at;
  if (to == AttemptState::ended) finished_at = clock_.unix_ms();
  std::optional<std::string> log_path;
  if (change.log_path) log_path = path_in_home(home_, *change.log_path);
  std::optional<std::string_view> phase;
  if (change.phase) phase = to_string(*change.phase);
  std::optional<std::string_view> stop;
  if (change.stop) stop = to_string(*change.stop);
  ASSAY_TRY(db_.run(
      "UPDATE attempts SET state = ?2, phase = coalesce(?3, phase), started_at = coalesce(?4, started_at), "
      "log_path = coalesce(?5, log_path), resumed_from_step = coalesce(?6, resumed_from_step), finished_at = ?7, "
      "result = ?8, reason = ?9, step = ?10, exit_code = ?11, signal = ?12, peak_mem_mib = ?13, operation = ?14, "
      "tensor = ?15, error = ?16, log_tail = ?17, n = CASE WHEN ?8 = 'not_started' THEN NULL ELSE n END, "
      "stop_reason = coalesce(?18, stop_reason) WHERE id = ?1",
      change.attempt_id, to_string(to), phase, change.started_at, log_path, change.resumed_from_step, finished_at,
      to_string(outcome.result), to_string(outcome.reason), outcome.step, outcome.exit_code, outcome.signal,
      std::isfinite(outcome.peak_mem_mib) ? outcome.peak_mem_mib : 0.0, cut_end(outcome.operation, limits::error_chars),
      cut_end(outcome.tensor, limits::error_chars), cut_end(outcome.error, limits::error_chars),
      cut_start(outcome.log_tail, limits::log_tail_bytes), stop));
  if (outcome.result == AttemptResult::not_started)
    ASSAY_TRY(db_.run("UPDATE runs SET attempts = attempts - 1 WHERE id = ?", found.integer(2)));
  if (!change.to) return {};
  EventRow event;
  event.experiment_id = found.integer(3);
  event.run_id = found.integer(2);
  event.attempt_id = change.attempt_id;
  event.kind = *change.kind;
  event.from_state = state;
  event.to_state = to_string(to);
  event.cause = change.cause;
  return events_.write(event);
}

}  // namespace assay
