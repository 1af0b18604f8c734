// A backup of one of the two databases is put back, or the end of a write-ahead log is lost.
#include <filesystem>

#include "queue_fixture.h"

namespace assay {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RestoredStoreTest : public QueueTest {
 protected:
  void close() {
    queue_.reset();
    metrics_.reset();
    runs_.reset();
  }
  // What `cp queue.db queue.db-wal ...` of a running or a stopped daemon gives.
  void copy(const std::string& database, const std::string& from, const std::string& to) {
    for (const char* part : {"", "-wal", "-shm"}) {
      const std::string source = from + "/" + database + part, target = to + "/" + database + part;
      fs::remove(target);
      if (fs::exists(source)) fs::copy_file(source, target);
    }
  }
  void back_up(const std::string& database) { copy(database, folder_.path(), backup_.path()); }
  void put_back(const std::string& database) {
    close();
    copy(database, backup_.path(), folder_.path());
    open();
  }
  // Every step of the attempt is of one execution, which is returned.
  int64_t execution_of(int64_t attempt, int64_t steps = 10) {
    const auto stored = *metrics_->query(attempt, 0, 0);
    EXPECT_EQ(static_cast<int64_t>(stored.size()), steps) << "attempt " << attempt;
    if (stored.empty()) return 0;
    const auto execution = static_cast<int64_t>(stored.front().loss);
    for (const StepMetrics& step : stored)
      EXPECT_EQ(step.loss, FakeWorker::loss_of(execution, step.step)) << "attempt " << attempt;
    return execution;
  }
  std::vector<EventRow> events_of(EventKind kind) {
    std::vector<EventRow> found;
    const auto events = runs_->events_after(0, 0);
    EXPECT_TRUE(events.ok());
    for (const EventRow& event : *events)
      if (event.kind == kind) found.push_back(event);
    return found;
  }
  // Runs whatever is queued to its end, on one device, in the order of the queue; each run's execution in `executed`.
  void run_all(FakeWorker& worker) {
    while (!worker.held.empty()) {
      const auto& [attempt, lease] = *worker.held.begin();
      executed_[lease.order.run] = lease.execution;
      finish(worker, attempt);
    }
  }

  TempFolder backup_;
  std::map<std::string, int64_t> executed_;
};

TEST_F(RestoredStoreTest, AnOlderQueueNeverGivesARunTheStepsOfAnother) {
  enqueue(spec_of({"a", "b", "c"}));
  changed(hold({}, ""));
  close();
  back_up("queue.db");
  open();
  FakeWorker worker("w");
  connect(worker);
  changed(release({}, ""));
  run_all(worker);
  const int64_t last_event = *runs_->last_event_id();
  worker.cut();

  put_back("queue.db");
  ASSERT_THAT(events_of(EventKind::store_restored).size(), 1u);
  const EventRow told = events_of(EventKind::store_restored)[0];
  EXPECT_THAT(told.cause, HasSubstr("queue.db is older than metrics.db"));
  EXPECT_THAT(told.cause, HasSubstr("it has forgotten 3 attempts, "));
  EXPECT_GT(told.id, last_event) << "whoever follows the feed sees it";
  EXPECT_EQ(state("a"), "queued");

  changed(cancel({.names = {"b"}}, false, ""));  // so that attempts and runs do not go in step again
  changed(release({}, ""));
  connect(worker);
  run_all(worker);
  for (const char* run : {"a", "c"}) {
    SCOPED_TRACE(run);
    ASSERT_EQ(attempts(run).size(), 1u);
    const AttemptRow attempt = attempts(run)[0];
    EXPECT_EQ(attempt.n, 1);
    EXPECT_GT(attempt.id, 3);
    EXPECT_GT(attempt.lease_epoch, 3);
    EXPECT_EQ(execution_of(attempt.id), executed_.at(run));
    EXPECT_EQ(summary(attempt.id).steps_observed, 10);
  }
  worker.cut();
  restart();
  EXPECT_EQ(events_of(EventKind::store_restored).size(), 1u) << "it is said once";
  EXPECT_THAT(events_of(EventKind::metrics_restored), IsEmpty());
}

// The log of queue.db is cut at many places; what is left is an older queue.
TEST_F(RestoredStoreTest, HalfAWriteAheadLogIsAnOlderQueue) {
  FakeWorker first("w");
  enqueue(spec_of({"a", "b", "c", "d"}));
  connect(first);
  run_all(first);
  first.cut();
  back_up("queue.db");  // with its log, as a killed daemon leaves it
  close();
  back_up("metrics.db");
  const auto size = static_cast<int64_t>(fs::file_size(backup_.file("queue.db-wal")));
  ASSERT_GT(size, 100'000);
  int behind = 0;
  for (int64_t part = 0; part <= 12; ++part) {
    SCOPED_TRACE(part);
    copy("queue.db", backup_.path(), folder_.path());
    copy("metrics.db", backup_.path(), folder_.path());
    fs::remove(folder_.file("queue.db-shm"));
    fs::resize_file(folder_.file("queue.db-wal"), static_cast<uintmax_t>(size * part / 12));
    auto store = RunStore::open(folder_.file("queue.db"), clock_);
    ASSERT_TRUE(store.ok()) << store.error().message;
    const std::string id = (*store)->store_id();
    store->reset();
    auto metrics = MetricStore::open(folder_.file("metrics.db"), id);
    if (!metrics.ok()) {  // so little is left that not even the queue's name is: said, and nothing is touched
      EXPECT_THAT(metrics.error().message, HasSubstr("belong to another queue.db"));
      continue;
    }
    metrics->reset();
    open();
    behind += static_cast<int>(events_of(EventKind::store_restored).size());
    FakeWorker worker("w");
    worker.executions = 100;
    executed_.clear();
    if (!runs_->get_run("a").ok()) enqueue(spec_of({"a", "b", "c", "d"}));
    connect(worker);
    run_all(worker);
    for (const char* run : {"a", "b", "c", "d"}) {
      SCOPED_TRACE(run);
      EXPECT_EQ(state(run), "completed");
      const AttemptRow last = attempts(run).back();
      // Either it had ended before the cut, or it was executed again.
      EXPECT_EQ(execution_of(last.id), executed_.contains(run) ? executed_.at(run) : last.id);
    }
    worker.cut();
    close();
  }
  EXPECT_GT(behind, 4);
  open();
}

TEST_F(RestoredStoreTest, AnOlderMetricsFileIsSaidAndLiveAttemptsSendAgain) {
  FakeWorker worker("w", 2);
  enqueue(spec_of({"a", "b", "c"}, Backend::cuda));
  connect(worker);
  const int64_t a = worker.attempt_of("a"), b = worker.attempt_of("b");
  worker.tell_started(*queue_, b);
  worker.make_steps(b, 4);
  worker.tell_steps(*queue_, b);
  commit();
  worker.cut();
  close();
  back_up("metrics.db");
  open();
  connect(worker);
  finish(worker, a);
  const int64_t c = worker.attempt_of("c");
  finish(worker, c);
  worker.make_steps(b, 3);
  worker.tell_steps(*queue_, b);
  commit();
  worker.cut();

  put_back("metrics.db");
  ASSERT_EQ(events_of(EventKind::metrics_restored).size(), 1u);
  EXPECT_THAT(events_of(EventKind::metrics_restored)[0].cause,
              HasSubstr("it lacks steps of exp/t1/a (attempt 1), exp/t1/c (attempt 1); their journals"));
  connect(worker);
  EXPECT_EQ(worker.held.at(b).acked, 4) << "the welcome says what is stored, not what was acknowledged";
  worker.end(b);
  worker.tell_steps(*queue_, b);
  worker.tell_end(*queue_, b);
  commit();
  execution_of(b, 7);
  EXPECT_EQ(state("b"), "completed");
  worker.cut();
  restart();
  EXPECT_EQ(events_of(EventKind::metrics_restored).size(), 1u);
}

TEST_F(RestoredStoreTest, AMetricsFileThatIsGoneIsSaid) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b", "c", "d", "e"}));
  connect(worker);
  finish(worker, worker.attempt_of("a"), AttemptResult::failed, FailureReason::crashed, 0);  // no step was made
  run_all(worker);
  worker.cut();
  close();
  for (const char* part : {"metrics.db", "metrics.db-wal", "metrics.db-shm"}) fs::remove(folder_.file(part));
  open();
  ASSERT_EQ(events_of(EventKind::metrics_restored).size(), 1u);
  EXPECT_THAT(events_of(EventKind::metrics_restored)[0].cause,
              HasSubstr("exp/t1/b (attempt 1), exp/t1/c (attempt 1), exp/t1/d (attempt 1) and 1 more"));
  EXPECT_THAT(events_of(EventKind::store_restored), IsEmpty());
}

TEST_F(RestoredStoreTest, StepsOfAnotherExecutionEndTheAttemptInsteadOfBeingDropped) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  begin(worker, attempt, 4);
  worker.held.at(attempt).execution = 9;  // its journal was exchanged
  worker.held.at(attempt).acked = 2;
  worker.make_steps(attempt, 2);
  worker.tell_steps(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "failed");
  EXPECT_EQ(attempts("a")[0].outcome.reason, FailureReason::internal);
  EXPECT_THAT(attempts("a")[0].outcome.error, HasSubstr("its steps cannot be stored: attempt 1: step 2 is stored"));
  EXPECT_THAT(worker.abandoned, ElementsAre(attempt)) << "it kills the trainer and does not send them for ever";
  EXPECT_TRUE(worker.connected());
  EXPECT_EQ(execution_of(attempt, 4), 1);
}

}  // namespace
}  // namespace assay
