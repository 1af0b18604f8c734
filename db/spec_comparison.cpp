#include "db/spec_comparison.h"

#include <fmt/core.h>

#include <unordered_map>

#include "base/limits.h"
#include "base/text.h"
#include "db/run_rows.h"
#include "db/sqlite.h"
#include "spec/config_fields.h"
#include "spec/run_config_toml.h"

namespace assay {

namespace {

std::string cell_of(std::string_view cell_key, int64_t repeat) {
  return fmt::format("{} {}", cell_key, repeat);
}

// "train.steps = 20 there and 30 here, ...": the values that differ, the first few of them in words.
std::string difference(const RunConfig& there, const RunConfig& here) {
  constexpr size_t shown = 4;
  std::vector<std::string> differences;
  for (const ConfigField& field : config_fields()) {
    const ConfigValue old_value = field.get(there), new_value = field.get(here);
    if (old_value == new_value) continue;
    differences.push_back(
        fmt::format("{} = {} there and {} here", field.path, plain_text(old_value), plain_text(new_value)));
  }
  return first_of(differences, shown);
}

template <class T>
void note_change(std::vector<std::string>& updated, std::string_view key, const T& from, const T& to) {
  if (from != to) updated.push_back(fmt::format("{} {} -> {}", key, from, to));
}

std::string word_or(const std::string& text, std::string_view none) {
  return text.empty() ? std::string(none) : text;
}

struct QueuedRun {
  int64_t id = 0;
  std::string name;
  int64_t seed = 0;
};

// The runs of an experiment by name and by cell.
struct QueuedRuns {
  std::vector<QueuedRun> all;
  std::unordered_map<std::string, size_t> by_name, by_cell;
  const QueuedRun* find(const PlannedRun& run) const {
    if (const auto it = by_cell.find(cell_of(run.cell_key, run.repeat)); it != by_cell.end()) return &all[it->second];
    if (const auto it = by_name.find(run.name); it != by_name.end()) return &all[it->second];
    return nullptr;
  }
};

Result<QueuedRuns> queued_runs(Database& db, int64_t experiment_id) {
  QueuedRuns runs;
  ASSAY_ASSIGN(auto rows, db.prepare("SELECT id, name, cell_key, repeat, seed FROM runs WHERE experiment_id = ?"));
  rows.bind(experiment_id);
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return runs;
    runs.by_name.emplace(rows.text(1), runs.all.size());
    runs.by_cell.emplace(cell_of(rows.text(2), rows.integer(3)), runs.all.size());
    runs.all.push_back({rows.integer(0), rows.text(1), rows.integer(4)});
  }
}

// The same cell with the same seed is the same run. Else its configs are compared value by value: a cell's key also
// changes when a newer program has one more value.
Result<std::string> run_difference(Database& db, int64_t run_id, const PlannedRun& run) {
  ASSAY_ASSIGN(auto config, db.prepare("SELECT config_toml FROM run_configs WHERE run_id = ?"));
  ASSAY_ASSIGN(bool row, config.bind(run_id).step());
  if (!row) return Error{ErrorCode::data_loss, fmt::format("queue.db is damaged: run {} has no config", run_id)};
  return difference(parse_run_config(config.text(0), "run.toml").config, run.config);
}

// What enqueueing will change of the experiment itself, in words: "priority 0 -> 5 (3 waiting runs)".
Result<std::vector<std::string>> policy_changes(Database& db, const ExperimentSpec& spec, int64_t experiment_id) {
  std::vector<std::string> updated;
  ASSAY_ASSIGN(auto old, db.prepare("SELECT on_failure, max_attempts, retry_on, backoff_s, baseline FROM experiments "
                                    "WHERE id = ?"));
  ASSAY_ASSIGN(bool row, old.bind(experiment_id).step());
  if (!row) return updated;
  ASSAY_ASSIGN(auto priorities,
               db.prepare("SELECT priority, sum(finished_at IS NULL AND state <> 'running') FROM runs WHERE "
                          "experiment_id = ? AND priority <> ? GROUP BY priority ORDER BY priority"));
  priorities.bind(experiment_id, spec.priority);
  while (true) {
    ASSAY_ASSIGN(bool another, priorities.step());
    if (!another) break;
    const int64_t waiting = priorities.integer(1);
    if (waiting > 0)
      updated.push_back(
          fmt::format("priority {} -> {} ({})", priorities.integer(0), spec.priority, plural(waiting, "waiting run")));
  }
  note_change<std::string_view>(updated, "on_failure", old.text(0), to_string(spec.on_failure));
  note_change<int64_t>(updated, "retry.max_attempts", old.integer(1), spec.retry.max_attempts);
  note_change(updated, "retry.on", word_or(old.text(2), "none"), word_or(join_reasons(spec.retry), "none"));
  note_change(updated, "retry.backoff_s", old.integer(3), spec.retry.backoff_s);
  note_change(updated, "baseline", word_or(old.text(4), "the first run"), word_or(spec.baseline, "the first run"));
  return updated;
}

}  // namespace

Result<SpecComparison> compare_spec(Database& db, const ExperimentSpec& spec, const std::string& tag) {
  SpecComparison result;
  ASSAY_ASSIGN(const int64_t id,
               db.integer("SELECT id FROM experiments WHERE tag = ? AND name = ?", tag, spec.experiment));
  result.experiment_id = id;
  ASSAY_ASSIGN(const QueuedRuns there, queued_runs(db, id));
  for (const PlannedRun& run : spec.runs) {
    RunComparison& compared = result.runs.emplace_back();
    const QueuedRun* queued = there.find(run);
    if (queued == nullptr) continue;
    compared.is = RunComparison::Is::already_there;
    if (there.by_cell.contains(cell_of(run.cell_key, run.repeat)) && queued->seed == run.config.train.seed) continue;
    ASSAY_ASSIGN(compared.difference, run_difference(db, queued->id, run));
    if (!compared.difference.empty()) compared.is = RunComparison::Is::another;
  }
  if (id == 0) return result;
  ASSAY_ASSIGN(result.updated, policy_changes(db, spec, id));
  return result;
}

std::string conflict_text(const ExperimentSpec& spec, const std::string& tag, const SpecComparison& comparison) {
  std::vector<std::string> conflicts;
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    if (comparison.runs[i].is != RunComparison::Is::another) continue;
    conflicts.push_back(fmt::format("{}: {}", spec.runs[i].name, conflict_text(spec, tag, comparison.runs[i])));
  }
  return first_lines(conflicts, limits::spec_errors_shown);
}

std::string conflict_text(const ExperimentSpec& spec, const std::string& tag, const RunComparison& run) {
  return fmt::format(
      "{} has a run of this name under tag {} with another config: {}; enqueue under another --tag, or give "
      "the run another name",
      spec.experiment, tag, run.difference);
}

}  // namespace assay
