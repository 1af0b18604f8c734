#include "db/run_store.h"

#include <fmt/core.h>

#include <filesystem>
#include <mutex>

#include "db/event_table.h"
#include "db/experiment_tables.h"
#include "db/fleet_tables.h"
#include "db/known_words.h"
#include "db/migrations.h"
#include "db/name_resolver.h"
#include "db/request_table.h"
#include "db/run_lists.h"
#include "db/run_reader.h"
#include "db/run_rows.h"
#include "db/run_writer.h"
#include "db/setting_table.h"
#include "db/sqlite.h"
#include "db/store_table.h"

namespace assay {

// The parts take no lock and begin no transaction: every function of RunStore takes the one and, if it writes, begins
// and commits the other, which undoes what a part has written before it failed.
struct RunStore::Impl {
  Impl(Database opened, const Clock& time)
      : db(std::move(opened)), clock(time), home(std::filesystem::path(db.path()).parent_path().string()) {}

  Status quick_check_at_open();
  Result<Applied> apply_list(const ChangeList& changes);
  Status apply_one(const RunChange& change, Applied&) { return writer.apply(change); }
  Status apply_one(const AttemptChange& change, Applied&) { return writer.apply(change); }
  Status apply_one(const NewAttempt& change, Applied& applied) {
    ASSAY_ASSIGN(AttemptRow attempt, writer.add(change));
    applied.attempts.push_back(std::move(attempt));
    return {};
  }
  Status apply_one(const WorkerHello& change, Applied&) { return fleet.apply(change); }
  Status apply_one(const WorkerChange& change, Applied&) { return fleet.apply(change); }
  Status apply_one(const DeviceChange& change, Applied&) { return fleet.apply(change); }
  Status apply_one(const SettingChange& change, Applied&) { return settings.apply(change); }
  Status apply_one(const EventNote& change, Applied&) { return events.apply(change); }
  Status apply_one(const RequestResult& change, Applied&) { return requests.apply(change); }

  std::mutex mutex;
  Database db;
  const Clock& clock;
  const std::string home;  // the folder of the file
  std::string store_id;

  StoreTable store{db};
  EventTable events{db, clock};
  SettingTable settings{db, events};
  RequestTable requests{db, clock};
  FleetTables fleet{db, clock, events};
  ExperimentTables experiments{db, clock, events, requests};
  NameResolver names{db, experiments};
  RunWriter writer{db, clock, home, store, events, fleet};
  RunReader reader{db, home, names, fleet, settings};
  RunLists lists{db, home, names};
};

// --- the file --------------------------------------------------------------------------------------------------------

RunStore::RunStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RunStore::~RunStore() = default;

Result<std::unique_ptr<RunStore>> RunStore::open(const std::string& path, const Clock& clock) {
  ASSAY_ASSIGN(auto db, Database::open(path, Database::Synchronous::full));
  auto impl = std::make_unique<Impl>(std::move(db), clock);
  ASSAY_TRY(migrate(impl->db, queue_schema(), clock.unix_ms()));
  ASSAY_TRY(learn_words(impl->db));
  ASSAY_TRY(impl->quick_check_at_open());
  return std::unique_ptr<RunStore>(new RunStore(std::move(impl)));
}

// PRAGMA quick_check of the whole file reads every page: many seconds with 100,000 ended runs. What a starting daemon
// relies on is small, so that is what is read: the small tables, and every live run with its latest attempt. A damaged
// page of the history is found when it is read, or by check().
Status RunStore::Impl::quick_check_at_open() {
  for (std::string_view table : {"store", "run_counts", "workers", "devices", "allocations", "settings"}) {
    ASSAY_TRY(db.quick_check(table));
  }
  for (const WordTable& words : word_tables()) ASSAY_TRY(db.quick_check(words.table));
  ASSAY_ASSIGN(store_id, store.store_id());
  for (const RunStage live : {RunStage::active, RunStage::waiting}) {
    // total_steps lies behind every text of the row, so all pages of the row are read.
    std::string sql = fmt::format(
        "SELECT sum(r.total_steps + coalesce(a.id, 0)) FROM runs r LEFT JOIN attempts a ON a.run_id = r.id AND "
        "a.n = r.attempts WHERE {}",
        in_stage(live));
    ASSAY_ASSIGN(int64_t ignored, db.integer(sql));
    (void)ignored;
  }
  ASSAY_ASSIGN(int64_t last_event, events.last_id());
  (void)last_event;
  return {};
}

const std::string& RunStore::store_id() const {
  return impl_->store_id;
}

Status RunStore::check() {
  std::lock_guard lock(impl_->mutex);
  ASSAY_TRY(impl_->db.quick_check(""));
  ASSAY_ASSIGN(auto broken, impl_->db.prepare("PRAGMA foreign_key_check"));
  ASSAY_ASSIGN(bool row, broken.bind().step());
  if (!row) return {};
  return Error{ErrorCode::data_loss, fmt::format("{} is damaged: row {} of {} names a row of {} that does not exist",
                                                 impl_->db.path(), broken.integer(1), broken.text(0), broken.text(2))};
}

// --- how far the queue has come --------------------------------------------------------------------------------------

Result<QueueMark> RunStore::mark() {
  std::lock_guard lock(impl_->mutex);
  return impl_->store.mark();
}

Status RunStore::move_past(const QueueMark& mark, const EventNote& why) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  ASSAY_TRY(impl_->store.move_past(mark));
  ASSAY_TRY(impl_->events.apply(why));
  return transaction.commit();
}

// --- names of attempts -----------------------------------------------------------------------------------------------

std::string RunStore::attempt_key(const AttemptRow& attempt) const {
  return fmt::format("{}/{}/{}/{}", store_id(), attempt.run_id, attempt.id, attempt.created_at);
}

Result<std::vector<std::string>> RunStore::earlier_keys(const AttemptRow& attempt) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(const std::vector<AttemptRow> attempts, impl_->reader.attempts_of(attempt.run_id));
  ASSAY_ASSIGN(const int64_t last_without_key, impl_->settings.last_attempt_without_key());
  std::vector<std::string> keys;
  bool without_key = false;
  for (const AttemptRow& earlier : attempts) {
    if (earlier.id == attempt.id) continue;
    keys.push_back(attempt_key(earlier));
    without_key = without_key || earlier.id <= last_without_key;
  }
  if (without_key) keys.emplace_back();
  return keys;
}

// --- writes ----------------------------------------------------------------------------------------------------------

Result<EnqueueResult> RunStore::insert_experiment(const ExperimentSpec& spec, const std::string& tag,
                                                  const std::string& request_id, const std::string& cause) {
  if (tag.empty() || spec.experiment.empty()) {
    return Error{ErrorCode::invalid_argument, "an experiment needs a name and a tag"};
  }
  std::lock_guard lock(impl_->mutex);
  if (!request_id.empty()) {
    ASSAY_ASSIGN(auto done, impl_->experiments.remembered(request_id));
    if (done) return *std::move(done);
  }
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  ASSAY_ASSIGN(auto result, impl_->experiments.insert(spec, tag, cause));
  if (!request_id.empty()) ASSAY_TRY(impl_->experiments.remember(request_id, result));
  ASSAY_TRY(transaction.commit());
  return result;
}

Result<Applied> RunStore::apply(const ChangeList& changes) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  ASSAY_ASSIGN(auto applied, impl_->apply_list(changes));
  ASSAY_TRY(transaction.commit());
  return applied;
}

Result<std::vector<Result<Applied>>> RunStore::apply_groups(const std::vector<ChangeList>& groups) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  std::vector<Result<Applied>> results;
  for (const ChangeList& changes : groups) {
    Result<Applied> applied = Applied{};
    auto body = [&]() -> Status {
      applied = impl_->apply_list(changes);
      return applied.ok() ? Status() : Status(applied.error());
    };
    Status inner;
    ASSAY_TRY(transaction.attempt(body, inner));
    results.push_back(std::move(applied));
  }
  ASSAY_TRY(transaction.commit());
  return results;
}

Result<Applied> RunStore::Impl::apply_list(const ChangeList& changes) {
  Applied applied;
  for (const Change& change : changes) {
    ASSAY_TRY(std::visit([&](const auto& one) { return apply_one(one, applied); }, change));
  }
  ASSAY_ASSIGN(applied.last_event_id, events.last_id());
  return applied;
}

SettingChange RunStore::hold_queue(bool held, std::string cause) {
  return SettingTable::hold_queue(held, std::move(cause));
}

// --- reads ----------------------------------------------------------------------------------------------------------

Result<SpecComparison> RunStore::compare_experiment(const ExperimentSpec& spec, const std::string& tag) {
  std::lock_guard lock(impl_->mutex);
  return compare_spec(impl_->db, spec, tag);
}

Result<std::vector<ClaimCandidate>> RunStore::claim_candidates(int64_t now_ms, int64_t limit) {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.claim_candidates(now_ms, limit);
}

Result<std::optional<int64_t>> RunStore::next_retry_at() {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.next_retry_at();
}

Result<std::vector<AttemptContext>> RunStore::live_attempts() {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.live_attempts();
}

Result<AttemptContext> RunStore::get_attempt(int64_t attempt_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.get_attempt(attempt_id);
}

Result<std::vector<ListedRun>> RunStore::list_runs(const RunFilter& filter) {
  std::lock_guard lock(impl_->mutex);
  return impl_->lists.list(filter);
}

Result<RunCounts> RunStore::count_runs(const RunFilter& filter) {
  std::lock_guard lock(impl_->mutex);
  return impl_->lists.count(filter);
}

Result<ListedRun> RunStore::get_run(const std::string& name) {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.get(name);
}

Result<ListedRun> RunStore::get_run_by_id(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.get(run_id);
}

Result<std::vector<AttemptRow>> RunStore::attempts_of(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.attempts_of(run_id);
}

Result<std::string> RunStore::why_not_started(int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->reader.why_not_started(run_id);
}

Result<ExperimentRow> RunStore::find_experiment(const std::string& tag) {
  std::lock_guard lock(impl_->mutex);
  if (tag.empty()) return impl_->experiments.newest();
  ASSAY_ASSIGN(const int64_t id, impl_->names.experiment(tag));
  return impl_->experiments.get(id);
}

Result<ExperimentRow> RunStore::get_experiment(int64_t id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->experiments.get(id);
}

Result<std::vector<ExperimentRow>> RunStore::list_experiments(int64_t limit) {
  std::lock_guard lock(impl_->mutex);
  return impl_->experiments.list(limit);
}

Result<std::vector<EventRow>> RunStore::events_after(int64_t after_id, int64_t limit, int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->events.after(after_id, limit, run_id);
}

Result<int64_t> RunStore::last_event_id() {
  std::lock_guard lock(impl_->mutex);
  return impl_->events.last_id();
}

Result<std::vector<WorkerRow>> RunStore::list_workers() {
  std::lock_guard lock(impl_->mutex);
  return impl_->fleet.workers();
}

Result<std::vector<DeviceListing>> RunStore::list_devices() {
  std::lock_guard lock(impl_->mutex);
  return impl_->fleet.devices();
}

Result<std::string> RunStore::setting(const std::string& key) {
  std::lock_guard lock(impl_->mutex);
  return impl_->settings.get(key);
}

Result<bool> RunStore::queue_held() {
  std::lock_guard lock(impl_->mutex);
  return impl_->settings.queue_held();
}

Result<std::optional<std::string>> RunStore::find_request(const std::string& request_id, const std::string& method) {
  std::lock_guard lock(impl_->mutex);
  return impl_->requests.find(request_id, method);
}

}  // namespace assay
