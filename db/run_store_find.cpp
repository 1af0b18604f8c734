// Looking up one experiment, one run, its attempts.
#include <fmt/core.h>

#include <algorithm>

#include "db/run_store_impl.h"

namespace assay {

namespace {

std::vector<std::string_view> split_name(std::string_view name) {
  std::vector<std::string_view> parts;
  while (true) {
    size_t slash = name.find('/');
    parts.push_back(name.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    name.remove_prefix(slash + 1);
  }
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

Error no_run(const std::string& name, const std::string& tag) {
  std::string where = tag.empty() ? "" : fmt::format(" under tag \"{}\"", tag);
  return Error{ErrorCode::not_found, fmt::format("no run is named \"{}\"{}; `assay ls` shows the names", name, where)};
}

}  // namespace

Result<int64_t> RunStore::Impl::resolve_run(const std::string& name, const std::string& tag) {
  auto parts = split_name(name);
  if (parts.size() > 3) {
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("\"{}\" has too many parts: a run is \"name\", \"tag/name\" or \"experiment/tag/name\"", name)};
  }
  std::string_view run = parts.back();
  std::string_view run_tag = parts.size() >= 2 ? parts[parts.size() - 2] : std::string_view(tag);
  std::string_view experiment = parts.size() == 3 ? parts[0] : std::string_view();
  ASSAY_ASSIGN(
      auto rows,
      db.prepare("SELECT r.id, e.name || '/' || e.tag || '/' || r.name, e.tag FROM runs r CROSS JOIN experiments e "
                 "ON e.id = r.experiment_id WHERE r.name = ?1 AND (?2 = '' OR e.tag = ?2) AND "
                 "(?3 = '' OR e.name = ?3) ORDER BY r.experiment_id DESC"));
  rows.bind(run, run_tag, experiment);
  std::vector<int64_t> ids;
  std::vector<std::string> candidates;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) break;
    if (!tag.empty() && rows.text(2) != tag) continue;
    ids.push_back(rows.integer(0));
    candidates.push_back(rows.text(1));
    if (run_tag.empty()) break;  // a plain name means the newest experiment that has it
  }
  if (ids.empty()) return no_run(name, tag);
  if (ids.size() == 1) return ids.front();
  return Error{ErrorCode::invalid_argument,
               fmt::format("\"{}\" means several runs: {}; give the full name", name, join(candidates))};
}

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
  ASSAY_ASSIGN(int64_t id, impl_->resolve_run(name, ""));
  return impl_->listed_run(id, true);
}

Result<ListedRun> RunStore::get_run_by_id(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->listed_run(run_id, true);
}

Result<std::vector<AttemptRow>> RunStore::attempts_of(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows,
               impl_->db.prepare(fmt::format("SELECT {}, a.log_tail FROM attempts a WHERE a.run_id = ? AND "
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
  size_t slash = tag.find('/');
  std::string name = slash == std::string::npos ? "" : tag.substr(0, slash);
  std::string plain = slash == std::string::npos ? tag : tag.substr(slash + 1);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(fmt::format(
                              "SELECT {}, e.spec_text FROM experiments e WHERE (?1 = '' OR e.tag = ?1) AND "
                              "(?2 = '' OR e.name = ?2) ORDER BY e.id DESC LIMIT CASE WHEN ?1 = '' THEN 1 ELSE -1 END",
                              experiment_columns)));
  rows.bind(plain, name);
  std::vector<std::string> candidates;
  ExperimentRow experiment;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) break;
    int at = 0;
    ASSAY_ASSIGN(experiment, read_experiment(rows, at));
    experiment.spec_text = rows.text(at);
    candidates.push_back(experiment.name + "/" + experiment.tag);
  }
  if (candidates.size() == 1) return experiment;
  if (candidates.size() > 1) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("tag \"{}\" means several experiments: {}; give the full name", tag, join(candidates))};
  }
  if (tag.empty()) return Error{ErrorCode::not_found, "there is no experiment yet; `assay enqueue SPEC` makes one"};
  return Error{ErrorCode::not_found, fmt::format("no experiment has the tag \"{}\"; `assay ls` shows the tags", tag)};
}

Result<ExperimentRow> RunStore::get_experiment(int64_t id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(fmt::format("SELECT {}, e.spec_text FROM experiments e WHERE e.id = ?",
                                                        experiment_columns)));
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
