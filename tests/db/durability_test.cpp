// What a crash, a damaged file or a failing disk may and may not do to the stores.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <filesystem>

#include "db/metric_store.h"
#include "store_fixture.h"

namespace assay {
namespace {

using testing::HasSubstr;

class DurabilityTest : public StoreTest {
 protected:
  // Runs `body` in a child that is then killed with SIGKILL; it must have said `ready` before.
  template <class Body>
  void kill_after(Body body) {
    store_.reset();  // a child must not inherit an open connection
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      body();
      char byte = 'r';
      if (::write(ready[1], &byte, 1) != 1) ::_exit(3);
      while (true) ::pause();
    }
    ::close(ready[1]);
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1) << "the child ended early";
    ::close(ready[0]);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
  }
  static void must(bool ok) {
    if (!ok) ::_exit(2);
  }
  // Ends every connection and moves the write-ahead log into the file, so that damage to the file is seen.
  void close_store() { store_.reset(); }
  Error open_error() {
    auto opened = RunStore::open(path(), clock_);
    EXPECT_FALSE(opened.ok());
    return opened.ok() ? Error{} : opened.error();
  }
  int64_t root_page(const std::string& table) {
    auto db = Database::open(path(), Database::Synchronous::full);
    EXPECT_TRUE(db.ok());
    return *db->integer("SELECT rootpage FROM sqlite_schema WHERE name = ?", table);
  }
};

TEST_F(DurabilityTest, AfterKillTheCommittedIsThereAndOnlyTheCommitted) {
  add_worker();
  auto runs = enqueue(3);
  kill_after([&] {
    auto store = RunStore::open(path(), clock_);
    must(store.ok());
    must((*store)->apply({move(runs[0], RunState::queued, RunState::running), lease(runs[0])}).ok());
    must((*store)->apply({move(runs[1], RunState::queued, RunState::held)}).ok());
    store->release();  // stays open until the kill
    // A second connection dies inside its transaction.
    auto db = Database::open(path(), Database::Synchronous::full);
    must(db.ok());
    auto* leaked = new Database(std::move(*db));
    must(leaked->run_script("BEGIN IMMEDIATE").ok());
    must(leaked->run("UPDATE runs SET state = 'held' WHERE id = ?", runs[2]).ok());
  });
  reopen();
  EXPECT_EQ(state_of(runs[0]), RunState::running);
  EXPECT_EQ(state_of(runs[1]), RunState::held);
  EXPECT_EQ(state_of(runs[2]), RunState::queued);
  auto live = store_->live_attempts();
  ASSERT_EQ(live->size(), 1u);
  EXPECT_EQ(live->at(0).run.id, runs[0]);
  EXPECT_THAT(live->at(0).device_ids, testing::ElementsAre("d0"));
  EXPECT_TRUE(store_->check().ok());
}

TEST_F(DurabilityTest, KilledInTheMiddleOfWritingManyTimes) {
  // Each child enqueues one experiment after another until it is killed at a moment of its own.
  store_.reset();
  int64_t before = 0;
  for (int round = 0; round < 5; ++round) {
    pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = RunStore::open(path(), clock_);
      must(store.ok());
      for (int i = 0;; ++i) {
        std::string tag = std::to_string(round) + "-" + std::to_string(i);
        must((*store)->insert_experiment(make_spec(50), tag, tag).ok());
      }
    }
    // The child is at work once the write-ahead log holds some experiments; poll the file, not the clock.
    std::error_code absent;
    auto log_bytes = [&] {
      auto bytes = std::filesystem::file_size(path() + "-wal", absent);
      return absent ? 0 : bytes;
    };
    while (log_bytes() < 200'000u * (round + 1)) {
      ASSERT_EQ(::waitpid(child, nullptr, WNOHANG), 0) << "the child ended early";
      ::sched_yield();
    }
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    reopen();
    auto experiments = store_->list_experiments(0);
    ASSERT_TRUE(experiments.ok());
    int64_t now = static_cast<int64_t>(experiments->size());
    EXPECT_GT(now, before);
    EXPECT_EQ(store_->count_runs({})->total(), now * 50) << "an experiment is there whole or not at all";
    EXPECT_EQ(*store_->last_event_id(), now * 50);
    EXPECT_TRUE(store_->check().ok());
    for (const auto& experiment : *experiments) {
      EXPECT_TRUE(store_->find_request(experiment.tag, "enqueue")->has_value()) << "its request is remembered with it";
    }
    before = now;
    store_.reset();
  }
}

TEST_F(DurabilityTest, AfterKillMetricsAndAcknowledgementAgree) {
  std::string metrics = folder_.path() + "/metrics.db";
  kill_after([&] {
    auto store = MetricStore::open(metrics, "q");
    must(store.ok());
    for (int64_t i = 0; i < 20; ++i) {
      std::vector<StepMetrics> steps(10);
      for (int64_t k = 0; k < 10; ++k) steps[k].step = 10 * i + k;
      must((*store)->append(1, 10 * i + 1, steps).ok());
    }
    store->release();
  });
  auto store = MetricStore::open(metrics, "q");
  ASSERT_TRUE(store.ok()) << store.error().message;
  EXPECT_EQ((*store)->query(1, 0, 0)->size(), 200u);
  EXPECT_EQ(*(*store)->acked_seq(1), 200);
  EXPECT_EQ((*store)->summary(1)->steps_observed, 200);
}

TEST_F(DurabilityTest, ADamagedPageOfTheLiveTableIsDataLossAtOpen) {
  enqueue(200);
  close_store();
  int64_t page = root_page("runs");
  damage(path(), (page - 1) * 4096, 4096);
  Error error = open_error();
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_THAT(error.message, HasSubstr(path()));
  EXPECT_THAT(error.message, HasSubstr("damaged"));
  EXPECT_THAT(error.message, HasSubstr("restore a backup"));
}

TEST_F(DurabilityTest, ADamagedPageOfASmallTableIsDataLossAtOpen) {
  close_store();
  damage(path(), (root_page("settings") - 1) * 4096, 4096);
  Error error = open_error();
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_THAT(error.message, HasSubstr("damaged"));
}

TEST_F(DurabilityTest, ADamagedPageOfTheHistoryIsFoundWhenReadAndByCheck) {
  int64_t run = enqueue(1)[0];
  close_store();
  damage(path(), (root_page("run_configs") - 1) * 4096, 4096);
  reopen();  // a start reads no history
  auto read = store_->get_run_by_id(run);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, ErrorCode::data_loss);
  auto checked = store_->check();
  ASSERT_FALSE(checked.ok());
  EXPECT_EQ(checked.error().code, ErrorCode::data_loss);
  EXPECT_TRUE(store_->apply({SettingChange{"a", "a", ""}}).ok()) << "reading a damaged page does not stop the writer";
  auto write = store_->insert_experiment(make_spec(2), "t2", "");
  ASSERT_FALSE(write.ok());
  EXPECT_EQ(write.error().code, ErrorCode::data_loss);
  auto stopped = store_->apply({SettingChange{"a", "b", ""}});
  ASSERT_FALSE(stopped.ok()) << "meeting one while writing does";
  EXPECT_THAT(stopped.error().message, HasSubstr("nothing is written any more"));
}

TEST_F(DurabilityTest, ADamagedHeaderIsDataLoss) {
  close_store();
  damage(path(), 0, 100);
  Error error = open_error();
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_THAT(error.message, HasSubstr("its first page is damaged"));
}

TEST_F(DurabilityTest, AFileCutShortIsDataLoss) {
  enqueue(200);
  close_store();
  auto size = std::filesystem::file_size(path());
  std::filesystem::resize_file(path(), size / 2 / 4096 * 4096);
  Error error = open_error();
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_THAT(error.message, HasSubstr("damaged"));
}

TEST_F(DurabilityTest, AnEmptyFileIsANewQueue) {
  close_store();
  std::filesystem::remove(path());
  ASSERT_EQ(::close(::open(path().c_str(), O_CREAT | O_WRONLY, 0600)), 0);
  reopen();
  EXPECT_EQ(store_->count_runs({})->total(), 0);
}

TEST_F(DurabilityTest, DamagedMetricsAreDataLoss) {
  std::string metrics = folder_.path() + "/metrics.db";
  int64_t page = 0;
  {
    auto store = MetricStore::open(metrics, "q");
    ASSERT_TRUE(store.ok());
    std::vector<StepMetrics> steps(1000);
    for (int64_t k = 0; k < 1000; ++k) steps[k].step = k;
    ASSERT_TRUE((*store)->append(1, 1, steps).ok());
  }
  {
    auto db = Database::open(metrics, Database::Synchronous::normal);
    ASSERT_TRUE(db.ok());
    page = *db->integer("SELECT rootpage FROM sqlite_schema WHERE name = 'steps'");
  }
  damage(metrics, (page - 1) * 4096, 4096);
  auto store = MetricStore::open(metrics, "q");
  ASSERT_TRUE(store.ok()) << store.error().message;
  EXPECT_EQ((*store)->query(1, 0, 0).error().code, ErrorCode::data_loss);
  EXPECT_EQ((*store)->summary(1)->steps_observed, 1000) << "the summary is on a sound page";
  EXPECT_EQ((*store)->check().error().code, ErrorCode::data_loss);
}

// A limit on the size of files stands in for a failing disk: write(2) fails with EFBIG.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    if (::getrlimit(RLIMIT_FSIZE, &old_) != 0) std::abort();
    struct rlimit limit = {bytes, old_.rlim_max};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) std::abort();
  }
  ~FileSizeLimit() {
    if (::setrlimit(RLIMIT_FSIZE, &old_) != 0) std::abort();
    ::signal(SIGXFSZ, old_handler_);
  }

 private:
  struct rlimit old_ {};
  sighandler_t old_handler_ = nullptr;
};

TEST_F(DurabilityTest, AFailedWriteStopsTheStoreAndLosesNothingCommitted) {
  enqueue(3, "t1");
  {
    FileSizeLimit limit(std::filesystem::file_size(path() + "-wal") + 8192);
    auto result = store_->insert_experiment(make_spec(2000), "t2", "req");
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::unavailable);
    EXPECT_THAT(result.error().message, HasSubstr("SQLite code 778"));
    EXPECT_THAT(result.error().message, HasSubstr("restart assayd"));
  }
  auto refused = store_->apply({RunStore::hold_queue(true, "test")});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("nothing is written any more since an earlier write failed"));
  EXPECT_EQ(names({}).size(), 3u) << "reads go on";
  reopen();
  EXPECT_EQ(store_->count_runs({})->total(), 3);
  EXPECT_FALSE(store_->find_request("req", "enqueue")->has_value());
  EXPECT_TRUE(store_->check().ok());
  EXPECT_EQ(enqueue(5, "t2").size(), 5u);
}

TEST_F(DurabilityTest, AFailedMetricWriteStopsThatStore) {
  auto store = MetricStore::open(folder_.path() + "/metrics.db", "q");
  ASSERT_TRUE(store.ok());
  std::vector<StepMetrics> steps(5000);
  for (int64_t k = 0; k < 5000; ++k) steps[k].step = k;
  ASSERT_TRUE((*store)->append(1, 1, {steps.data(), 10}).ok());
  {
    FileSizeLimit limit(std::filesystem::file_size(folder_.path() + "/metrics.db-wal") + 8192);
    ASSERT_FALSE((*store)->append(1, 1, steps).ok());
  }
  EXPECT_THAT((*store)->append(1, 1, steps).error().message, HasSubstr("nothing is written any more"));
  store = MetricStore::open(folder_.path() + "/metrics.db", "q");
  EXPECT_EQ(*(*store)->acked_seq(1), 10);
  EXPECT_EQ((*store)->append(1, 1, steps)->stored, 4990);
}

}  // namespace
}  // namespace assay
