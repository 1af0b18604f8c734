// Looking up one experiment, one run, its attempts.
#include <fmt/core.h>

#include <algorithm>

#include "db/run_store_impl.h"

namespace assay {

Result<ListedRun> RunStore::Impl::listed_run(int64_t run_id, bool complete) {
  ASSAY_ASSIGN(auto rows,
               db.prepare(fmt::format("SELECT e.name, e.tag, {}, {}{} FROM runs r CROSS JOIN experiments e ON e.id = "
                                      "r.experiment_id LEFT JOIN attempts a ON a.run_id = r.id AND a.n = r.attempts {} "
                                      "WHERE r.id = ?",
                                      run_columns, attempt_columns, complete ? ", a.log_tail, c.config_toml" : "",
                                      complete ? "LEFT JOIN run_configs c ON c.run_id = r.id" : "")));
  ASSAY_ASSIGN(bool row, rows.bind(run_id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no run {}", run_id)};
  ListedRun listed;
  listed.experiment = rows.text(0);
  listed.tag = rows.text(1);
  int at = 2;
  ASSAY_ASSIGN(listed.run, read_run(rows, at));
  int attempt_at = at;
  if (!rows.is_null(at)) {
    ASSAY_ASSIGN(listed.latest, attempt_from(rows, at));
  }
  if (complete) {
    at = attempt_at + 1 + static_cast<int>(std::count(attempt_columns.begin(), attempt_columns.end(), ','));
    if (listed.latest) listed.latest->outcome.log_tail = rows.text(at);
    listed.run.config_toml = rows.text(at + 1);
  }
  return listed;
}

Result<ListedRun> RunStore::get_run(const std::string& name) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(int64_t id, impl_->resolve_run(name, 0));
  return impl_->listed_run(id, true);
}

Result<ListedRun> RunStore::get_run_by_id(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->listed_run(run_id, true);
}

Result<std::vector<AttemptRow>> RunStore::attempts_of(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(fmt::format("SELECT {}, a.log_tail FROM attempts a WHERE a.run_id = ? AND "
                                                        "a.n IS NOT NULL ORDER BY a.n",
                                                        attempt_columns)));
  rows.bind(run_id);
  std::vector<AttemptRow> attempts;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return attempts;
    int at = 0;
    ASSAY_ASSIGN(AttemptRow attempt, impl_->attempt_from(rows, at));
    attempt.outcome.log_tail = rows.text(at);
    attempts.push_back(std::move(attempt));
  }
}

Result<std::string> RunStore::why_not_started(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare("SELECT CASE WHEN n IS NULL THEN error ELSE '' END FROM attempts "
                                            "WHERE run_id = ? ORDER BY id DESC LIMIT 1"));
  ASSAY_ASSIGN(bool row, rows.bind(run_id).step());
  return row ? rows.text(0) : std::string();
}

Result<ExperimentRow> RunStore::find_experiment(const std::string& tag) {
  std::lock_guard lock(impl_->mutex);
  if (!tag.empty()) {
    ASSAY_ASSIGN(const int64_t id, impl_->resolve_experiment(tag));
    return impl_->experiment(id);
  }
  ASSAY_ASSIGN(const int64_t newest, impl_->db.integer("SELECT coalesce(max(id), 0) FROM experiments"));
  if (newest == 0) return Error{ErrorCode::not_found, "there is no experiment yet; `assay enqueue SPEC` makes one"};
  return impl_->experiment(newest);
}

Result<ExperimentRow> RunStore::get_experiment(int64_t id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->experiment(id);
}

Result<ExperimentRow> RunStore::Impl::experiment(int64_t id) {
  ASSAY_ASSIGN(auto rows,
               db.prepare(fmt::format("SELECT {}, e.spec_text FROM experiments e WHERE e.id = ?", experiment_columns)));
  ASSAY_ASSIGN(bool row, rows.bind(id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no experiment {}", id)};
  int at = 0;
  ASSAY_ASSIGN(ExperimentRow experiment, read_experiment(rows, at));
  experiment.spec_text = rows.text(at);
  return experiment;
}

Result<std::vector<ExperimentRow>> RunStore::list_experiments(int64_t limit) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(fmt::format("SELECT {} FROM experiments e ORDER BY e.id DESC LIMIT ?",
                                                        experiment_columns)));
  rows.bind(limit == 0 ? -1 : limit);
  std::vector<ExperimentRow> experiments;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return experiments;
    int at = 0;
    ASSAY_ASSIGN(ExperimentRow experiment, read_experiment(rows, at));
    experiments.push_back(std::move(experiment));
  }
}

}  // namespace assay
