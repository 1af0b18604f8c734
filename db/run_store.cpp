#include "db/run_store.h"

#include <fmt/core.h>

#include <filesystem>

#include "base/home.h"
#include "db/known_words.h"
#include "db/migrations.h"
#include "db/run_store_impl.h"

namespace assay {

RunStore::Impl::Impl(Database opened, const Clock& time)
    : db(std::move(opened)), clock(time), home(std::filesystem::path(db.path()).parent_path().string()) {}

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
  ASSAY_ASSIGN(auto id, db.prepare("SELECT store_id FROM store"));
  ASSAY_ASSIGN(bool row, id.bind().step());
  if (!row) return Error{ErrorCode::data_loss, fmt::format("{} is damaged: table store is empty", db.path())};
  store_id = id.text(0);
  for (const RunStage live : {RunStage::active, RunStage::waiting}) {
    // total_steps is the row's last column but two, so the whole row is read.
    std::string sql = fmt::format(
        "SELECT sum(r.total_steps + coalesce(a.id, 0)) FROM runs r LEFT JOIN attempts a ON a.run_id = r.id AND "
        "a.n = r.attempts WHERE {}",
        in_stage(live));
    ASSAY_ASSIGN(int64_t ignored, db.integer(sql));
    (void)ignored;
  }
  ASSAY_ASSIGN(int64_t last_event, last_event_id());
  (void)last_event;
  return {};
}

const std::string& RunStore::store_id() const {
  return impl_->store_id;
}

std::string RunStore::attempt_key(const AttemptRow& attempt) const {
  return fmt::format("{}/{}/{}/{}", store_id(), attempt.run_id, attempt.id, attempt.created_at);
}

Result<std::vector<std::string>> RunStore::earlier_keys(const AttemptRow& attempt) {
  ASSAY_ASSIGN(const std::vector<AttemptRow> attempts, attempts_of(attempt.run_id));
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(
      const int64_t last_without_key,
      impl_->db.integer("SELECT CAST(value AS INTEGER) FROM settings WHERE key = ?", last_attempt_without_key));
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
  return read_mark(impl_->db,
                   "SELECT name, seq FROM sqlite_sequence UNION ALL SELECT 'lease_epoch', lease_epoch FROM store");
}

Status RunStore::move_past(const QueueMark& mark, const EventNote& why) {
  std::lock_guard lock(impl_->mutex);
  Database& db = impl_->db;
  ASSAY_ASSIGN(auto transaction, Transaction::begin(db));
  for (const auto& [counter, greatest] : mark) {
    if (counter == "lease_epoch") {
      ASSAY_TRY(db.run("UPDATE store SET lease_epoch = max(lease_epoch, ?)", greatest));
      continue;
    }
    ASSAY_TRY(db.run("UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", counter, greatest));
    // A table that has never had a row has none here either.
    if (db.rows_changed() == 0) ASSAY_TRY(db.run("INSERT INTO sqlite_sequence VALUES (?, ?)", counter, greatest));
  }
  Applied ignored;
  ASSAY_TRY(impl_->apply_one(why, ignored));
  return transaction.commit();
}

Result<AttemptRow> RunStore::Impl::attempt_from(const Statement& row, int& at) const {
  ASSAY_ASSIGN(AttemptRow attempt, read_attempt(row, at));
  attempt.log_path = path_from_home(home, attempt.log_path);
  return attempt;
}

// --- changes ---------------------------------------------------------------------------------------------------------

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
  ASSAY_ASSIGN(applied.last_event_id, last_event_id());
  return applied;
}

}  // namespace assay
