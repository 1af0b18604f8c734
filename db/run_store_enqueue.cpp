// Enqueueing: a spec becomes an experiment and its runs in one transaction.
#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "db/run_store_impl.h"
#include "spec/run_config_toml.h"

namespace assay {

namespace {

constexpr const char* enqueue_method = "enqueue";

std::string to_json(const EnqueueResult& result) {
  return nlohmann::json{{"experiment_id", result.experiment_id},
                        {"experiment", result.experiment},
                        {"tag", result.tag},
                        {"added", result.added},
                        {"already_there", result.already_there}}
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
  return result;
}

std::string cell_of(std::string_view cell_key, int64_t repeat) {
  return fmt::format("{} {}", cell_key, repeat);
}

}  // namespace

Result<EnqueueResult> RunStore::insert_experiment(const ExperimentSpec& spec, const std::string& tag,
                                                  const std::string& request_id, const std::string& cause) {
  if (tag.empty() || spec.experiment.empty()) {
    return Error{ErrorCode::invalid_argument, "an experiment needs a name and a tag"};
  }
  std::lock_guard lock(impl_->mutex);
  if (!request_id.empty()) {
    ASSAY_ASSIGN(auto done, impl_->find_request(request_id, enqueue_method));
    if (done) return from_json(*done);
  }
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  ASSAY_ASSIGN(auto result, impl_->insert_spec(spec, tag, cause));
  if (!request_id.empty()) {
    Applied ignored;
    ASSAY_TRY(impl_->apply_one(RequestResult{request_id, enqueue_method, to_json(result)}, ignored));
  }
  ASSAY_TRY(transaction.commit());
  return result;
}

Result<int64_t> RunStore::Impl::upsert_experiment(const ExperimentSpec& spec, const std::string& tag) {
  ASSAY_TRY(
      db.run("INSERT INTO experiments (name, tag, spec_hash, baseline, on_failure, max_attempts, retry_on, backoff_s, "
             "created_at, "
             "spec_text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (tag, name) DO UPDATE SET "
             "spec_hash = ?3, "
             "baseline = ?4, on_failure = ?5, max_attempts = ?6, retry_on = ?7, backoff_s = ?8, spec_text = ?10",
             spec.experiment, tag, spec.hash, spec.baseline, to_string(spec.on_failure), spec.retry.max_attempts,
             join_reasons(spec.retry), spec.retry.backoff_s, now(), spec.text));
  return db.integer("SELECT id FROM experiments WHERE tag = ? AND name = ?", tag, spec.experiment);
}

Result<EnqueueResult> RunStore::Impl::insert_spec(const ExperimentSpec& spec, const std::string& tag,
                                                  const std::string& cause) {
  EnqueueResult result;
  result.experiment = spec.experiment;
  result.tag = tag;
  ASSAY_ASSIGN(result.experiment_id, upsert_experiment(spec, tag));

  std::unordered_set<std::string> cells;
  std::unordered_set<std::string> names;
  ASSAY_ASSIGN(auto there, db.prepare("SELECT name, cell_key, repeat FROM runs WHERE experiment_id = ?"));
  there.bind(result.experiment_id);
  while (true) {
    ASSAY_ASSIGN(bool row, there.step());
    if (!row) break;
    names.insert(there.text(0));
    cells.insert(cell_of(there.text(1), there.integer(2)));
  }

  // Prepared once, outside the loop: 10,000 runs are three statements each.
  ASSAY_ASSIGN(auto add_run,
               db.prepare("INSERT INTO runs (experiment_id, name, cell_key, repeat, seed, state, priority, devices, "
                          "backend, total_steps, created_at) VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)"));
  ASSAY_ASSIGN(auto add_config, db.prepare("INSERT INTO run_configs (run_id, config_toml) VALUES (?, ?)"));
  EventRow event;
  event.experiment_id = result.experiment_id;
  event.kind = "run_enqueued";
  event.to_state = to_string(RunState::queued);
  event.cause = cause;
  int64_t created_at = now();
  for (const PlannedRun& run : spec.runs) {
    if (!cells.insert(cell_of(run.cell_key, run.repeat)).second) {
      ++result.already_there;
      continue;
    }
    if (!names.insert(run.name).second) {
      return Error{ErrorCode::already_exists,
                   fmt::format("{} under tag {} already has a run named {} with another config; enqueue under another "
                               "tag, or give the run another name",
                               spec.experiment, tag, run.name)};
    }
    const RunConfig& config = run.config;
    ASSAY_TRY(add_run
                  .bind(result.experiment_id, run.name, run.cell_key, run.repeat, config.train.seed, spec.priority,
                        config.devices, to_string(config.backend), config.train.steps, created_at)
                  .run());
    event.run_id = db.last_insert_id();
    ASSAY_TRY(add_config.bind(event.run_id, to_toml(config)).run());
    ASSAY_TRY(write_event(event));
    result.added.push_back(run.name);
  }
  return result;
}

}  // namespace assay
