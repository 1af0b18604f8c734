// What the scheduler asks: what to start next, when to look again, and what is alive.
#include <fmt/core.h>

#include "db/run_store_impl.h"

namespace assay {

Result<std::vector<ClaimCandidate>> RunStore::claim_candidates(int64_t now_ms, int64_t limit) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(bool held, impl_->held());
  if (held) return std::vector<ClaimCandidate>();
  // Index runs_claimable, in its own order: the first `limit` due rows are read and no more.
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(fmt::format(
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

Result<std::optional<int64_t>> RunStore::next_retry_at() {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto found, impl_->db.prepare("SELECT min(not_before) FROM runs WHERE state = 'retry_wait'"));
  ASSAY_ASSIGN(bool row, found.bind().step());
  if (!row || found.is_null(0)) return std::optional<int64_t>();
  return std::optional<int64_t>(found.integer(0));
}

Result<std::vector<AttemptContext>> RunStore::live_attempts() {
  std::lock_guard lock(impl_->mutex);
  // "+" keeps the planner from walking every attempt by id: the partial index of live ones is what to read.
  return impl_->attempt_contexts("a.state <> 'ended' AND ?1 = 0 ORDER BY +a.id", 0);
}

Result<AttemptContext> RunStore::get_attempt(int64_t attempt_id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto found, impl_->attempt_contexts("a.id = ?1", attempt_id));
  if (found.empty()) return Error{ErrorCode::not_found, fmt::format("there is no attempt {}", attempt_id)};
  return std::move(found.front());
}

Result<std::vector<AttemptContext>> RunStore::Impl::attempt_contexts(std::string_view condition, int64_t attempt_id) {
  ASSAY_ASSIGN(auto rows, db.prepare(fmt::format(
                              "SELECT {}, a.log_tail, {}, c.config_toml, e.name, e.tag FROM attempts a "
                              "CROSS JOIN runs r ON r.id = a.run_id CROSS JOIN run_configs c ON c.run_id = r.id "
                              "CROSS JOIN experiments e ON e.id = r.experiment_id WHERE {}",
                              attempt_columns, run_columns, condition)));
  ASSAY_ASSIGN(auto devices, db.prepare("SELECT device_id FROM allocations WHERE attempt_id = ? ORDER BY device_id"));
  rows.bind(attempt_id);
  std::vector<AttemptContext> contexts;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return contexts;
    AttemptContext context;
    int at = 0;
    ASSAY_ASSIGN(context.attempt, attempt_from(rows, at));
    context.attempt.outcome.log_tail = rows.text(at++);
    ASSAY_ASSIGN(context.run, read_run(rows, at));
    context.run.config_toml = rows.text(at++);
    context.experiment = rows.text(at++);
    context.tag = rows.text(at++);
    devices.bind(context.attempt.id);
    while (true) {
      ASSAY_ASSIGN(bool device, devices.step());
      if (!device) break;
      context.device_ids.push_back(devices.text(0));
    }
    contexts.push_back(std::move(context));
  }
}

}  // namespace assay
