#include "db/run_reader.h"

#include <fmt/core.h>

#include "db/run_rows.h"

namespace assay {

// --- one of them -----------------------------------------------------------------------------------------------------

Result<ListedRun> RunReader::get(const std::string& name) const {
  ASSAY_ASSIGN(const int64_t id, names_.run(name));
  return get(id);
}

Result<ListedRun> RunReader::get(int64_t run_id) const {
  ASSAY_ASSIGN(
      auto rows,
      db_.prepare(fmt::format(
          "SELECT e.name, e.tag, {}, {}, a.log_tail, c.config_toml FROM runs r CROSS JOIN experiments e ON e.id = "
          "r.experiment_id LEFT JOIN attempts a ON a.run_id = r.id AND a.n = r.attempts LEFT JOIN run_configs c ON "
          "c.run_id = r.id WHERE r.id = ?",
          run_columns, attempt_columns)));
  ASSAY_ASSIGN(bool row, rows.bind(run_id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no run {}", run_id)};
  int at = 0;
  ASSAY_ASSIGN(ListedRun listed, read_listed_run(rows, at, home_));
  if (listed.latest) listed.latest->outcome.log_tail = rows.text(at);
  listed.run.config_toml = rows.text(at + 1);
  return listed;
}

Result<std::vector<AttemptRow>> RunReader::attempts_of(int64_t run_id) const {
  ASSAY_ASSIGN(auto rows, db_.prepare(fmt::format("SELECT {}, a.log_tail FROM attempts a WHERE a.run_id = ? AND "
                                                  "a.n IS NOT NULL ORDER BY a.n",
                                                  attempt_columns)));
  rows.bind(run_id);
  std::vector<AttemptRow> attempts;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return attempts;
    int at = 0;
    ASSAY_ASSIGN(AttemptRow attempt, read_attempt(rows, at, home_));
    attempt.outcome.log_tail = rows.text(at);
    attempts.push_back(std::move(attempt));
  }
}

Result<std::string> RunReader::why_not_started(int64_t run_id) const {
  ASSAY_ASSIGN(auto rows, db_.prepare("SELECT CASE WHEN n IS NULL THEN error ELSE '' END FROM attempts "
                                      "WHERE run_id = ? ORDER BY id DESC LIMIT 1"));
  ASSAY_ASSIGN(bool row, rows.bind(run_id).step());
  return row ? rows.text(0) : std::string();
}

Result<std::vector<AttemptContext>> RunReader::live_attempts() const {
  // "+" keeps the planner from walking every attempt by id: the partial index of live ones is what to read.
  return contexts("a.state <> 'ended' AND ?1 = 0 ORDER BY +a.id", 0);
}

Result<AttemptContext> RunReader::get_attempt(int64_t attempt_id) const {
  ASSAY_ASSIGN(auto found, contexts("a.id = ?1", attempt_id));
  if (found.empty()) return Error{ErrorCode::not_found, fmt::format("there is no attempt {}", attempt_id)};
  return std::move(found.front());
}

Result<std::vector<AttemptContext>> RunReader::contexts(std::string_view condition, int64_t attempt_id) const {
  ASSAY_ASSIGN(auto rows, db_.prepare(fmt::format(
                              "SELECT {}, a.log_tail, {}, c.config_toml, e.name, e.tag FROM attempts a "
                              "CROSS JOIN runs r ON r.id = a.run_id CROSS JOIN run_configs c ON c.run_id = r.id "
                              "CROSS JOIN experiments e ON e.id = r.experiment_id WHERE {}",
                              attempt_columns, run_columns, condition)));
  rows.bind(attempt_id);
  std::vector<AttemptContext> found;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return found;
    AttemptContext context;
    int at = 0;
    ASSAY_ASSIGN(context.attempt, read_attempt(rows, at, home_));
    context.attempt.outcome.log_tail = rows.text(at++);
    ASSAY_ASSIGN(context.run, read_run(rows, at));
    context.run.config_toml = rows.text(at++);
    context.experiment = rows.text(at++);
    context.tag = rows.text(at++);
    ASSAY_ASSIGN(context.device_ids, fleet_.held_by(context.attempt.id));
    found.push_back(std::move(context));
  }
}

// --- what the scheduler asks -----------------------------------------------------------------------------------------

Result<std::vector<ClaimCandidate>> RunReader::claim_candidates(int64_t now_ms, int64_t limit) const {
  ASSAY_ASSIGN(bool held, settings_.queue_held());
  if (held) return std::vector<ClaimCandidate>();
  // Index runs_claimable, in its own order: the first `limit` due rows are read and no more.
  ASSAY_ASSIGN(auto rows, db_.prepare(fmt::format(
                              "SELECT {} FROM runs r WHERE r.state IN ('queued', 'retry_wait') AND r.not_before <= ? "
                              "ORDER BY r.priority DESC, r.id LIMIT ?",
                              run_columns)));
  rows.bind(now_ms, limit);
  std::vector<ClaimCandidate> candidates;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return candidates;
    int at = 0;
    ASSAY_ASSIGN(RunRow run, read_run(rows, at));
    candidates.push_back({run.id, run.experiment_id, run.state, run.priority, run.devices, run.backend});
  }
}

Result<std::optional<int64_t>> RunReader::next_retry_at() const {
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT min(not_before) FROM runs WHERE state = 'retry_wait'"));
  ASSAY_ASSIGN(bool row, found.bind().step());
  if (!row || found.is_null(0)) return std::optional<int64_t>();
  return std::optional<int64_t>(found.integer(0));
}

}  // namespace assay
