#include "db/run_rows.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/home.h"

namespace assay {

Error damaged_word(std::string_view where, const Error& why) {
  return Error{ErrorCode::data_loss, fmt::format("queue.db is damaged: column {}: {}", where, why.message)};
}

std::string in_stage(RunStage stage) {
  std::string words;
  for (const RunState state : states_of(stage))
    words += fmt::format("{}'{}'", words.empty() ? "" : ", ", to_string(state));
  return fmt::format("r.state IN ({})", words);
}

namespace {

Result<std::vector<FailureReason>> split_reasons(std::string_view text) {
  std::vector<FailureReason> reasons;
  while (!text.empty()) {
    size_t comma = std::min(text.find(','), text.size());
    auto reason = parse_word<FailureReason>(text.substr(0, comma));
    if (!reason.ok()) return damaged_word("experiments.retry_on", reason.error());
    reasons.push_back(*reason);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return reasons;
}

}  // namespace

Result<QueueMark> read_mark(Database& db, std::string_view sql) {
  ASSAY_ASSIGN(auto rows, db.prepare(sql));
  rows.bind();
  QueueMark mark;
  while (true) {
    ASSAY_ASSIGN(const bool row, rows.step());
    if (!row) return mark;
    mark[rows.text(0)] = rows.integer(1);
  }
}

std::string join_reasons(const RetryPolicy& retry) {
  std::string out;
  for (FailureReason reason : retry.on) {
    if (!out.empty()) out += ',';
    out += to_string(reason);
  }
  return out;
}

Result<RunRow> read_run(const Statement& row, int& at) {
  RunRow run;
  run.id = row.integer(at++);
  run.experiment_id = row.integer(at++);
  run.name = row.text(at++);
  run.cell_key = row.text(at++);
  run.repeat = static_cast<int>(row.integer(at++));
  run.seed = row.integer(at++);
  ASSAY_ASSIGN(run.state, read_word<RunState>(row, at++, "runs.state"));
  run.priority = static_cast<int>(row.integer(at++));
  run.devices = static_cast<int>(row.integer(at++));
  ASSAY_ASSIGN(run.backend, read_word<Backend>(row, at++, "runs.backend"));
  run.not_before = row.integer(at++);
  run.cancel_requested = row.integer(at++) != 0;
  run.attempts = row.integer(at++);
  run.lost_attempts = row.integer(at++);
  run.stopped_attempts = row.integer(at++);
  run.created_at = row.integer(at++);
  run.finished_at = row.integer(at++);
  run.total_steps = row.integer(at++);
  return run;
}

Result<AttemptRow> read_attempt(const Statement& row, int& at, const std::string& home) {
  AttemptRow attempt;
  attempt.id = row.integer(at++);
  attempt.run_id = row.integer(at++);
  attempt.n = row.integer(at++);
  attempt.lease_epoch = row.integer(at++);
  attempt.worker_id = row.text(at++);
  ASSAY_ASSIGN(attempt.state, read_word<AttemptState>(row, at++, "attempts.state"));
  ASSAY_ASSIGN(attempt.phase, read_word<Phase>(row, at++, "attempts.phase"));
  ASSAY_ASSIGN(attempt.stop, read_word<StopReason>(row, at++, "attempts.stop_reason"));
  ASSAY_ASSIGN(attempt.outcome.result, read_word<AttemptResult>(row, at++, "attempts.result"));
  ASSAY_ASSIGN(attempt.outcome.reason, read_word<FailureReason>(row, at++, "attempts.reason"));
  attempt.outcome.step = row.integer(at++);
  attempt.outcome.exit_code = static_cast<int>(row.integer(at++));
  attempt.outcome.signal = static_cast<int>(row.integer(at++));
  attempt.outcome.peak_mem_mib = row.real(at++);
  attempt.created_at = row.integer(at++);
  attempt.started_at = row.integer(at++);
  attempt.finished_at = row.integer(at++);
  attempt.resumed_from_step = row.integer(at++);
  attempt.log_path = path_from_home(home, row.text(at++));
  attempt.outcome.operation = row.text(at++);
  attempt.outcome.tensor = row.text(at++);
  attempt.outcome.error = row.text(at++);
  return attempt;
}

Result<ExperimentRow> read_experiment(const Statement& row, int& at) {
  ExperimentRow experiment;
  experiment.id = row.integer(at++);
  experiment.name = row.text(at++);
  experiment.tag = row.text(at++);
  experiment.spec_hash = row.text(at++);
  experiment.baseline = row.text(at++);
  ASSAY_ASSIGN(experiment.on_failure, read_word<OnFailure>(row, at++, "experiments.on_failure"));
  experiment.retry.max_attempts = static_cast<int>(row.integer(at++));
  ASSAY_ASSIGN(experiment.retry.on, split_reasons(row.text(at++)));
  experiment.retry.backoff_s = row.integer(at++);
  experiment.created_at = row.integer(at++);
  return experiment;
}

Result<ListedRun> read_listed_run(const Statement& row, int& at, const std::string& home) {
  ListedRun listed;
  listed.experiment = row.text(at++);
  listed.tag = row.text(at++);
  ASSAY_ASSIGN(listed.run, read_run(row, at));
  if (row.is_null(at)) {
    at += 1 + static_cast<int>(std::count(attempt_columns.begin(), attempt_columns.end(), ','));
    return listed;
  }
  ASSAY_ASSIGN(listed.latest, read_attempt(row, at, home));
  return listed;
}

}  // namespace assay
