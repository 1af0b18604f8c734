#include "db/metric_store.h"

#include <fmt/core.h>

#include <cmath>
#include <mutex>

#include "base/clock.h"
#include "db/migrations.h"
#include "db/run_rows.h"
#include "db/sqlite.h"
#include "db/step_rows.h"

namespace assay {

namespace {

// An attempt's row in table progress.
struct Progress {
  int64_t acked_seq = 0;
  AttemptSummary summary;
  int64_t last_val_step = -1;
};

Progress no_progress() {
  Progress progress;
  progress.summary.last_val_loss = std::nan("");
  return progress;
}

void add_to(Progress& progress, const StepMetrics& step) {
  AttemptSummary& summary = progress.summary;
  ++summary.steps_observed;
  if (step.step > summary.last_step) {
    summary.last_step = step.step;
    summary.last_loss = step.loss;
  }
  if (step.peak_mem_mib > summary.peak_mem_mib) summary.peak_mem_mib = step.peak_mem_mib;
  if (!std::isnan(step.val_loss) && step.step > progress.last_val_step) {
    progress.last_val_step = step.step;
    summary.last_val_loss = step.val_loss;
  }
}

}  // namespace

struct MetricStore::Impl {
  explicit Impl(Database opened) : db(std::move(opened)) {}
  Status adopt(const std::string& store_id);
  Result<Progress> read_progress(int64_t attempt_id);
  Status write_progress(int64_t attempt_id, const Progress& progress);
  Status add_tail(int64_t attempt_id, AttemptSummary& summary);
  Result<Appended> append(int64_t attempt_id, int64_t first_seq, std::span<const StepMetrics> steps);
  Status expect_same(int64_t attempt_id, const StepMetrics& sent);

  mutable std::mutex mutex;
  Database db;
  QueueMark noted;
  bool synced = false;  // what an earlier life of the daemon appended may not be
};

MetricStore::MetricStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricStore::~MetricStore() = default;

Result<std::unique_ptr<MetricStore>> MetricStore::open(const std::string& path, const std::string& store_id) {
  ASSAY_ASSIGN(auto db, Database::open(path, Database::Synchronous::normal));
  auto impl = std::make_unique<Impl>(std::move(db));
  ASSAY_TRY(migrate(impl->db, metrics_schema(), SystemClock().unix_ms()));
  ASSAY_TRY(check_step_table(impl->db));
  ASSAY_TRY(impl->adopt(store_id));
  // Steps are not read here (a long history is gigabytes): a damaged page of theirs is found when it is read.
  ASSAY_TRY(impl->db.quick_check("progress"));
  ASSAY_ASSIGN(impl->noted, read_mark(impl->db, "SELECT counter, greatest FROM queue_mark"));
  return std::unique_ptr<MetricStore>(new MetricStore(std::move(impl)));
}

// A new file takes the queue's name; an old one must carry it.
Status MetricStore::Impl::adopt(const std::string& store_id) {
  ASSAY_ASSIGN(auto transaction, Transaction::begin(db));
  ASSAY_TRY(db.run("INSERT INTO store (one, store_id) VALUES (1, ?) ON CONFLICT DO NOTHING", store_id));
  ASSAY_ASSIGN(int64_t same, db.integer("SELECT count(*) FROM store WHERE store_id = ?", store_id));
  if (same == 0) {
    return Error{
        ErrorCode::failed_precondition,
        fmt::format("{}: these metrics belong to another queue.db, and its attempt numbers mean other runs; put "
                    "the two files of one home back together, or move this one away to start without history",
                    db.path())};
  }
  return transaction.commit();
}

Status MetricStore::check() {
  std::lock_guard lock(impl_->mutex);
  return impl_->db.quick_check("");
}

// --- writing -------------------------------------------------------------------------------------------------------

Result<Appended> MetricStore::append(int64_t attempt_id, int64_t first_seq, std::span<const StepMetrics> steps) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  ASSAY_ASSIGN(Appended appended, impl_->append(attempt_id, first_seq, steps));
  impl_->synced = false;
  ASSAY_TRY(transaction.commit());
  return appended;
}

Status MetricStore::sync() {
  std::lock_guard lock(impl_->mutex);
  if (impl_->synced) return {};
  ASSAY_TRY(impl_->db.sync());
  impl_->synced = true;
  return {};
}

Result<Appended> MetricStore::Impl::append(int64_t attempt_id, int64_t first_seq, std::span<const StepMetrics> steps) {
  ASSAY_ASSIGN(Progress progress, read_progress(attempt_id));
  if (first_seq < 1) return Error{ErrorCode::invalid_argument, "journal records are numbered from 1"};
  if (first_seq > progress.acked_seq + 1) {
    return Error{ErrorCode::aborted,
                 fmt::format("attempt {}: record {} does not follow the last stored one, {}; send again from there",
                             attempt_id, first_seq, progress.acked_seq)};
  }
  int64_t known = std::min<int64_t>(progress.acked_seq - first_seq + 1, steps.size());
  for (const StepMetrics& m : steps.first(known)) ASSAY_TRY(expect_same(attempt_id, m));
  steps = steps.subspan(known);
  Appended appended{0, progress.acked_seq};
  if (steps.empty()) return appended;

  ASSAY_ASSIGN(auto insert, db.prepare(step_sql().insert));
  for (const StepMetrics& m : steps) {
    if (m.step < 0) return Error{ErrorCode::invalid_argument, fmt::format("attempt {}: step {}", attempt_id, m.step)};
    bind_step(insert.bind(attempt_id), m);
    ASSAY_TRY(insert.run());
    if (db.rows_changed() == 0) {
      ASSAY_TRY(expect_same(attempt_id, m));
      continue;
    }
    ++appended.stored;
    add_to(progress, m);
  }
  appended.acked_seq = progress.acked_seq += static_cast<int64_t>(steps.size());
  if (appended.stored > 0) ASSAY_TRY(add_tail(attempt_id, progress.summary));
  ASSAY_TRY(write_progress(attempt_id, progress));
  return appended;
}

// A step that is sent again has the values it had: a journal is never rewritten.
Status MetricStore::Impl::expect_same(int64_t attempt_id, const StepMetrics& m) {
  ASSAY_ASSIGN(auto same, db.prepare(step_sql().find_same));
  bind_step(same.bind(attempt_id), m);
  ASSAY_ASSIGN(const bool is_same, same.step());
  if (is_same) return {};
  ASSAY_ASSIGN(auto found, db.prepare(step_sql().find));
  ASSAY_ASSIGN(bool row, found.bind(attempt_id, m.step).step());
  std::string stored = "missing, though its journal record was stored";
  if (row) {
    const StepMetrics known = read_step(found);
    stored = fmt::format("stored with loss {}, made at {} ms", known.loss, known.unix_ms);
  }
  return Error{ErrorCode::already_exists,
               fmt::format("attempt {}: step {} is {}, and was sent with loss {}, made at {} ms: these are steps of "
                           "two executions",
                           attempt_id, m.step, stored, m.loss, m.unix_ms)};
}

// --- how far the queue has come --------------------------------------------------------------------------------------

Result<QueueMark> MetricStore::queue_mark() {
  std::lock_guard lock(impl_->mutex);
  return impl_->noted;
}

Status MetricStore::note(const QueueMark& mark) {
  std::lock_guard lock(impl_->mutex);
  if (mark == impl_->noted) return {};
  ASSAY_ASSIGN(auto transaction, Transaction::begin(impl_->db));
  for (const auto& [counter, greatest] : mark) {
    ASSAY_TRY(
        impl_->db.run("INSERT INTO queue_mark VALUES (?1, ?2) ON CONFLICT DO UPDATE SET greatest = max(greatest, ?2)",
                      counter, greatest));
  }
  ASSAY_TRY(transaction.commit());
  for (const auto& [counter, greatest] : mark) {
    int64_t& noted = impl_->noted[counter];
    noted = std::max(noted, greatest);
  }
  return {};
}

// --- steps -----------------------------------------------------------------------------------------------------------

// The last 50 steps by primary key: a fixed cost per append, whatever the length of the run.
Status MetricStore::Impl::add_tail(int64_t attempt_id, AttemptSummary& summary) {
  ASSAY_ASSIGN(auto tail, db.prepare("SELECT tok_per_sec, mfu, dt_ms, loss FROM steps WHERE attempt_id = ? "
                                     "ORDER BY step DESC LIMIT ?"));
  tail.bind(attempt_id, tail_steps);
  double tok_per_sec = 0, mfu = 0, dt_ms = 0, loss = 0;
  double count = 0;
  while (true) {
    ASSAY_ASSIGN(bool row, tail.step());
    if (!row) break;
    tok_per_sec += tail.real(0);
    mfu += tail.real(1);
    dt_ms += tail.real(2);
    loss += tail.real(3);
    ++count;
  }
  summary.tail50_tok_per_sec = tok_per_sec / count;
  summary.tail50_mfu = mfu / count;
  summary.tail50_dt_ms = dt_ms / count;
  summary.tail50_loss = loss / count;
  return {};
}

Status MetricStore::Impl::write_progress(int64_t attempt_id, const Progress& progress) {
  const AttemptSummary& s = progress.summary;
  return db.run("INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", attempt_id,
                progress.acked_seq, s.steps_observed, s.last_step, s.last_loss, s.tail50_tok_per_sec, s.tail50_mfu,
                s.tail50_dt_ms, s.tail50_loss, s.peak_mem_mib, s.last_val_loss, progress.last_val_step);
}

// --- reading -------------------------------------------------------------------------------------------------------

Result<Progress> MetricStore::Impl::read_progress(int64_t attempt_id) {
  ASSAY_ASSIGN(auto rows,
               db.prepare("SELECT acked_seq, steps_observed, last_step, last_loss, tail50_tok_per_sec, "
                          "tail50_mfu, tail50_dt_ms, tail50_loss, peak_mem_mib, last_val_loss, last_val_step "
                          "FROM progress WHERE attempt_id = ?"));
  ASSAY_ASSIGN(bool row, rows.bind(attempt_id).step());
  if (!row) return no_progress();
  Progress progress;
  AttemptSummary& s = progress.summary;
  progress.acked_seq = rows.integer(0);
  s.steps_observed = rows.integer(1);
  s.last_step = rows.integer(2);
  s.last_loss = rows.real(3);
  s.tail50_tok_per_sec = rows.real(4);
  s.tail50_mfu = rows.real(5);
  s.tail50_dt_ms = rows.real(6);
  s.tail50_loss = rows.real(7);
  s.peak_mem_mib = rows.real(8);
  s.last_val_loss = rows.real(9);
  progress.last_val_step = rows.integer(10);
  return progress;
}

Result<int64_t> MetricStore::acked_seq(int64_t attempt_id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(Progress progress, impl_->read_progress(attempt_id));
  return progress.acked_seq;
}

Result<AttemptSummary> MetricStore::summary(int64_t attempt_id) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(Progress progress, impl_->read_progress(attempt_id));
  return progress.summary;
}

Result<std::vector<AttemptSummary>> MetricStore::summaries(std::span<const int64_t> attempt_ids) {
  std::lock_guard lock(impl_->mutex);
  std::vector<AttemptSummary> summaries;
  summaries.reserve(attempt_ids.size());
  for (int64_t id : attempt_ids) {
    ASSAY_ASSIGN(Progress progress, impl_->read_progress(id));
    summaries.push_back(progress.summary);
  }
  return summaries;
}

Result<std::vector<StepMetrics>> MetricStore::query(int64_t attempt_id, int64_t from_step, int64_t limit) {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(step_sql().page));
  rows.bind(attempt_id, from_step, limit == 0 ? -1 : limit);
  std::vector<StepMetrics> steps;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return steps;
    steps.push_back(read_step(rows));
  }
}

}  // namespace assay
