// Enqueueing: a spec becomes an experiment and its runs in one transaction.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "db/run_store_impl.h"
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

// The runs have their experiment's priority, those that have begun or ended as well: they may wait again.
Status RunStore::Impl::update_policies(const ExperimentSpec& spec, const EnqueueResult& result,
                                       const std::string& cause) {
  ASSAY_TRY(db.run("UPDATE runs SET priority = ?2 WHERE experiment_id = ?1 AND priority <> ?2", result.experiment_id,
                   spec.priority));
  EventRow event;
  event.experiment_id = result.experiment_id;
  event.kind = EventKind::policy_changed;
  for (const std::string& change : result.updated) {
    event.cause = fmt::format("{}: {}", cause, change);
    ASSAY_TRY(write_event(event));
  }
  return {};
}

Result<EnqueueResult> RunStore::Impl::insert_spec(const ExperimentSpec& spec, const std::string& tag,
                                                  const std::string& cause) {
  ASSAY_ASSIGN(SpecComparison comparison, compare_spec(spec, tag));
  if (std::string conflicts = conflict_text(spec, tag, comparison); !conflicts.empty())
    return Error{ErrorCode::already_exists, std::move(conflicts)};
  EnqueueResult result;
  result.experiment = spec.experiment;
  result.tag = tag;
  result.updated = std::move(comparison.updated);
  ASSAY_ASSIGN(result.experiment_id, upsert_experiment(spec, tag));
  if (comparison.experiment_id != 0) ASSAY_TRY(update_policies(spec, result, cause));

  // Prepared once, outside the loop: 10,000 runs are three statements each.
  ASSAY_ASSIGN(auto add_run,
               db.prepare("INSERT INTO runs (experiment_id, name, cell_key, repeat, seed, state, priority, devices, "
                          "backend, total_steps, created_at) VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)"));
  ASSAY_ASSIGN(auto add_config, db.prepare("INSERT INTO run_configs (run_id, config_toml) VALUES (?, ?)"));
  EventRow event;
  event.experiment_id = result.experiment_id;
  event.kind = EventKind::run_enqueued;
  event.to_state = to_string(RunState::queued);
  event.cause = cause;
  int64_t created_at = now();
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
    event.run_id = db.last_insert_id();
    ASSAY_TRY(add_config.bind(event.run_id, to_toml(config)).run());
    ASSAY_TRY(write_event(event));
    result.added.push_back(run.name);
  }
  return result;
}

}  // namespace assay
