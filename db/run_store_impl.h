// What the parts of RunStore share. The public methods take the lock and call these; these never take it.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "db/run_rows.h"
#include "db/run_store.h"
#include "db/sqlite.h"

namespace assay {

inline constexpr std::string_view queue_held_key = "queue_held";
inline constexpr std::string_view last_attempt_without_key = "last_attempt_without_key";  // written by migration 5

struct RunStore::Impl {
  Impl(Database opened, const Clock& time);

  // One transaction's time, so that everything written together says the same.
  int64_t now() const { return clock.unix_ms(); }

  Status quick_check_at_open();

  // --- writes: inside the caller's transaction ---
  Result<Applied> apply_list(const ChangeList& changes);
  Status write_event(const EventRow& event);  // event.id and event.at are not read
  Status apply_one(const RunChange& change, Applied& applied);
  Status apply_one(const NewAttempt& change, Applied& applied);
  Status apply_one(const AttemptChange& change, Applied& applied);
  Status apply_one(const WorkerHello& change, Applied& applied);
  Status apply_one(const WorkerChange& change, Applied& applied);
  Status apply_one(const DeviceChange& change, Applied& applied);
  Status apply_one(const SettingChange& change, Applied& applied);
  Status apply_one(const EventNote& change, Applied& applied);
  Status apply_one(const RequestResult& change, Applied& applied);
  Status allocate(const AttemptRow& attempt, const std::vector<std::string>& device_ids);
  Result<SpecComparison> compare_spec(const ExperimentSpec& spec, const std::string& tag);
  Result<std::vector<std::string>> policy_changes(const ExperimentSpec& spec, int64_t experiment_id);
  Result<std::string> run_difference(int64_t run_id, const PlannedRun& run);
  Status update_policies(const ExperimentSpec& spec, const EnqueueResult& result, const std::string& cause);
  Result<EnqueueResult> insert_spec(const ExperimentSpec& spec, const std::string& tag, const std::string& cause);
  Result<int64_t> upsert_experiment(const ExperimentSpec& spec, const std::string& tag);

  // --- reads ---
  // read_attempt with the log's path as it is now.
  Result<AttemptRow> attempt_from(const Statement& row, int& at) const;
  Result<std::string> setting(std::string_view key);
  Result<bool> held();
  Result<std::optional<std::string>> find_request(const std::string& request_id, const std::string& method);
  Result<int64_t> last_event_id() { return db.integer("SELECT coalesce(max(id), 0) FROM events"); }
  // What names mean (run_store_names.cpp): the experiment of a tag that is not empty, the run of a name, of experiment
  // `experiment_id` alone when that is not 0.
  Result<int64_t> resolve_experiment(const std::string& tag);
  Result<int64_t> resolve_run(const std::string& name, int64_t experiment_id);
  // Why nothing has the name, and what may have been meant. `parts` are those of `name`.
  Error no_experiment(const std::string& tag);
  Error no_run(const std::string& name, const std::vector<std::string>& parts, int64_t experiment_id);
  // The same selection with its tag as experiment_id and its names as ids.
  Result<RunFilter> resolved(RunFilter filter);
  Result<ListedRun> listed_run(int64_t run_id, bool complete);
  Result<ExperimentRow> experiment(int64_t id);
  // Of a resolved filter.
  Result<std::vector<ListedRun>> list(const RunFilter& filter);
  // Rows of a query that begins with "SELECT e.name, e.tag, <run_columns>, <attempt_columns>".
  Status read_rows(Statement& rows, std::vector<ListedRun>& listed) const;
  Result<std::vector<ListedRun>> list_ids(const RunFilter& filter);
  Result<std::vector<ListedRun>> list_all(const RunFilter& filter);
  Result<std::vector<AttemptContext>> attempt_contexts(std::string_view condition, int64_t attempt_id);

  mutable std::mutex mutex;
  Database db;
  const Clock& clock;
  const std::string home;  // the folder of the file
  std::string store_id;
};

}  // namespace assay
