#include "db/experiment_tables.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "db/run_rows.h"
#include "spec/backend.h"
#include "spec/run_config_toml.h"

namespace assay {

namespace {

constexpr const char* enqueue_method = "enqueue";

std::string to_json(const EnqueueResult& result) {
  return nlohmann::json{{"experiment_id", result.experiment_id},
                        {"experiment", result.experiment},
                        {"tag", result.tag},
                        {"added", result.added},
                        {"already_there", result.already_there},
                        {"updated", result.updated}}
      .dump();
}

Result<EnqueueResult> from_json(const std::string& text) {
  auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return Error{ErrorCode::data_loss, "queue.db is damaged: a remembered enqueue is unreadable"};
  EnqueueResult result;
  result.experiment_id = json.value("experiment_id", int64_t{0});
  result.experiment = json.value("experiment", "");
  result.tag = json.value("tag", "");
  result.added = json.value("added", std::vector<std::string>());
  result.already_there = json.value("already_there", int64_t{0});
  result.updated = json.value("updated", std::vector<std::string>());
  return result;
}

}  // namespace

Status ExperimentTables::remember(const std::string& request_id, const EnqueueResult& result) {
  return requests_.apply(RequestResult{request_id, enqueue_method, to_json(result)});
}

Result<std::optional<EnqueueResult>> ExperimentTables::remembered(const std::string& request_id) const {
  ASSAY_ASSIGN(const auto done, requests_.find(request_id, enqueue_method));
  if (!done) return std::optional<EnqueueResult>();
  ASSAY_ASSIGN(EnqueueResult result, from_json(*done));
  return std::optional<EnqueueResult>(std::move(result));
}

Result<int64_t> ExperimentTables::upsert(const ExperimentSpec& spec, const std::string& tag) {
  ASSAY_TRY(
      db_.run("INSERT INTO experiments (name, tag, spec_hash, baseline, on_failure, max_attempts, retry_on, backoff_s, "
              "created_at, "
              "spec_text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (tag, name) DO UPDATE SET "
              "spec_hash = ?3, "
              "baseline = ?4, on_failure = ?5, max_attempts = ?6, retry_on = ?7, backoff_s = ?8, spec_text = ?10",
              spec.experiment, tag, spec.hash, spec.baseline, to_string(spec.on_failure), spec.retry.max_attempts,
              join_reasons(spec.retry), spec.retry.backoff_s, clock_.unix_ms(), spec.text));
  return db_.integer("SELECT id FROM experiments WHERE tag = ? AND name = ?", tag, spec.experiment);
}

// The runs have their experiment's priority, those that have begun or ended as well: they may wait again.
Status ExperimentTables::update_policies(const ExperimentSpec& spec, const EnqueueResult& result,
                                         const std::string& cause) {
  ASSAY_TRY(db_.run("UPDATE runs SET priority = ?2 WHERE experiment_id = ?1 AND priority <> ?2", result.experiment_id,
                    spec.priority));
  EventRow event;
  event.experiment_id = result.experiment_id;
  event.kind = EventKind::policy_changed;
  for (const std::string& change : result.updated) {
    event.cause = fmt::format("{}: {}", cause, change);
    ASSAY_TRY(events_.write(event));
  }
  return {};
}

Result<EnqueueResult> ExperimentTables::insert(const ExperimentSpec& spec, const std::string& tag,
                                               const std::string& cause) {
  ASSAY_ASSIGN(SpecComparison comparison, compare_spec(db_, spec, tag));
  if (std::string conflicts = conflict_text(spec, tag, comparison); !conflicts.empty())
    return Error{ErrorCode::already_exists, std::move(conflicts)};
  EnqueueResult result;
  result.experiment = spec.experiment;
  result.tag = tag;
  result.updated = std::move(comparison.updated);
  ASSAY_ASSIGN(result.experiment_id, upsert(spec, tag));
  if (comparison.experiment_id != 0) ASSAY_TRY(update_policies(spec, result, cause));
  ASSAY_TRY(insert_runs(spec, comparison, cause, result));
  return result;
}

// Counts in `result` those that are there already, and names the others.
Status ExperimentTables::insert_runs(const ExperimentSpec& spec, const SpecComparison& comparison,
                                     const std::string& cause, EnqueueResult& result) {
  // Prepared once, outside the loop: 10,000 runs are three statements each.
  ASSAY_ASSIGN(auto add_run,
               db_.prepare("INSERT INTO runs (experiment_id, name, cell_key, repeat, seed, state, priority, devices, "
                           "backend, total_steps, created_at) VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)"));
  ASSAY_ASSIGN(auto add_config, db_.prepare("INSERT INTO run_configs (run_id, config_toml) VALUES (?, ?)"));
  EventRow event;
  event.experiment_id = result.experiment_id;
  event.kind = EventKind::run_enqueued;
  event.to_state = to_string(RunState::queued);
  event.cause = cause;
  int64_t created_at = clock_.unix_ms();
  for (size_t i = 0; i < spec.runs.size(); ++i) {
    const PlannedRun& run = spec.runs[i];
    if (comparison.runs[i].is == RunComparison::Is::already_there) {
      ++result.already_there;
      continue;
    }
    const RunConfig& config = run.config;
    ASSAY_TRY(add_run
                  .bind(result.experiment_id, run.name, run.cell_key, run.repeat, config.train.seed, spec.priority,
                        config.devices, to_string(wanted_backend(config)), config.train.steps, created_at)
                  .run());
    event.run_id = db_.last_insert_id();
    ASSAY_TRY(add_config.bind(event.run_id, to_toml(config)).run());
    ASSAY_TRY(events_.write(event));
    result.added.push_back(run.name);
  }
  return {};
}

Result<ExperimentRow> ExperimentTables::get(int64_t id) const {
  ASSAY_ASSIGN(auto rows, db_.prepare(fmt::format("SELECT {}, e.spec_text FROM experiments e WHERE e.id = ?",
                                                  experiment_columns)));
  ASSAY_ASSIGN(bool row, rows.bind(id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no experiment {}", id)};
  int at = 0;
  ASSAY_ASSIGN(ExperimentRow experiment, read_experiment(rows, at));
  experiment.spec_text = rows.text(at);
  return experiment;
}

Result<ExperimentRow> ExperimentTables::newest() const {
  ASSAY_ASSIGN(const int64_t newest, db_.integer("SELECT coalesce(max(id), 0) FROM experiments"));
  if (newest == 0) return Error{ErrorCode::not_found, "there is no experiment yet; `assay enqueue SPEC` makes one"};
  return get(newest);
}

Result<std::vector<ExperimentRow>> ExperimentTables::list(int64_t limit) const {
  ASSAY_ASSIGN(auto rows,
               db_.prepare(fmt::format("SELECT {} FROM experiments e ORDER BY e.id DESC LIMIT ?", experiment_columns)));
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
