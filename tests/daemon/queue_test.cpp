#include "daemon/queue.h"

#include "base/limits.h"
#include "queue_fixture.h"

namespace assay {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(QueueTest, ARunGoesFromTheQueueToItsEnd) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  EXPECT_EQ(state("a"), "queued");
  connect(worker);
  EXPECT_EQ(state("a"), "running/leased");
  const int64_t attempt = worker.attempt_of("a");
  ASSERT_NE(attempt, 0);
  const LeaseMessage order = worker.held.at(attempt).order;
  EXPECT_EQ(order.folder, folder_.path() + "/runs/exp/t1/a/attempt1");
  EXPECT_EQ(order.run_folder, folder_.path() + "/runs/exp/t1/a");
  EXPECT_THAT(order.device_ids, ElementsAre("cpu:w"));
  EXPECT_THAT(order.config_toml, HasSubstr("steps = 10"));

  worker.tell_started(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "running/starting");
  EXPECT_EQ(attempts("a")[0].log_path, order.folder + "/trainer.log");
  EXPECT_EQ(attempts("a")[0].started_at, clock_.unix_ms());
  worker.make_steps(attempt, 10);
  worker.tell_steps(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "running/running");
  EXPECT_EQ(worker.held.at(attempt).acked, 10);
  clock_.advance_ms(1'000);
  worker.end(attempt);
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "completed");
  EXPECT_EQ(attempts("a")[0].finished_at, clock_.unix_ms());
  EXPECT_EQ(summary(attempt).steps_observed, 10);
  EXPECT_THAT(worker.held, IsEmpty());
}

TEST_F(QueueTest, NothingIsAcknowledgedOrLeasedBeforeTheCommit) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b"}));
  worker.connect(*queue_);
  EXPECT_THAT(worker.received, IsEmpty());
  commit();
  const int64_t attempt = worker.attempt_of("a");
  worker.tell_started(*queue_, attempt);
  worker.end(attempt);
  worker.tell_end(*queue_, attempt);
  EXPECT_THAT(worker.receipts, IsEmpty());
  EXPECT_EQ(worker.attempt_of("b"), 0);
  commit();
  EXPECT_THAT(worker.receipts, ElementsAre(AttemptNews::started, AttemptNews::ended));
  EXPECT_NE(worker.attempt_of("b"), 0);  // the device went over in the same commit
}

TEST_F(QueueTest, ExperimentsEnqueuedInOneSecondKeepApart) {
  const std::string now = format_tag(clock_.unix_ms());
  const auto first = queue_->enqueue(spec_of({"a"}), "", "id1");
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->tag, now);
  ExperimentSpec other = spec_of({"a"});
  other.runs[0].config.train.steps = 11;
  const auto second = queue_->enqueue(other, "", "id2");
  ASSERT_TRUE(second.ok()) << second.error().message;
  EXPECT_EQ(second->tag, now + "_2");
  EXPECT_THAT(second->added, ElementsAre("a"));
  EXPECT_EQ(queue_->enqueue(spec_of({"a"}), "", "id3")->tag, now + "_3") << "the same spec is another submission";
  EXPECT_EQ(queue_->enqueue(other, "", "id2")->tag, now + "_2") << "a request sent again";
}

TEST_F(QueueTest, OneAttemptAtATimeOnTheCpuPriorityThenAge) {
  FakeWorker worker("w");
  ExperimentSpec low = spec_of({"low1", "low2"});
  ExperimentSpec high = spec_of({"high"});
  high.priority = 5;
  enqueue(low, "t1");
  enqueue(high, "t2");
  connect(worker);
  std::vector<std::string> order;
  while (!worker.held.empty()) {
    ASSERT_EQ(worker.held.size(), 1u);
    order.push_back(worker.held.begin()->second.order.run);
    finish(worker, worker.held.begin()->first);
  }
  EXPECT_THAT(order, ElementsAre("high", "low1", "low2"));
}

TEST_F(QueueTest, ARunBehindOnesThatCannotStartYetIsFound) {
  FakeWorker cpu("w");
  std::vector<std::string> names;
  for (int i = 0; i < 200; ++i) names.push_back("gpu" + std::to_string(i));
  enqueue(spec_of(names, Backend::cuda), "t1");
  enqueue(spec_of({"small"}), "t2");
  connect(cpu);
  EXPECT_NE(cpu.attempt_of("small"), 0);
}

TEST_F(QueueTest, ALargeRunGetsItsDevicesTogether) {
  FakeWorker gpus("g", 4);
  enqueue(spec_of({"one"}, Backend::cuda, 1), "t1");
  connect(gpus);
  enqueue(spec_of({"large"}, Backend::cuda, 4), "t2");
  enqueue(spec_of({"two"}, Backend::cuda, 1), "t3");
  EXPECT_EQ(state("two"), "queued");  // three devices are free, but reserved
  finish(gpus, gpus.attempt_of("one"));
  EXPECT_EQ(gpus.held.at(gpus.attempt_of("large")).order.device_ids.size(), 4u);
  finish(gpus, gpus.attempt_of("large"));
  EXPECT_NE(gpus.attempt_of("two"), 0);
}

TEST_F(QueueTest, FailedRunsAreRetriedAsTheSpecSays) {
  FakeWorker worker("w");
  ExperimentSpec spec = spec_of({"a"});
  spec.retry = {.max_attempts = 2, .on = {FailureReason::crashed}, .backoff_s = 30};
  enqueue(spec);
  connect(worker);
  finish(worker, worker.attempt_of("a"), AttemptResult::failed, FailureReason::crashed);
  EXPECT_EQ(state("a"), "retry_wait");
  EXPECT_EQ(*queue_->ms_to_next_tick(), 30'000);
  pass_ms(29'999);
  EXPECT_EQ(worker.attempt_of("a"), 0);
  pass_ms(1);
  ASSERT_NE(worker.attempt_of("a"), 0);
  finish(worker, worker.attempt_of("a"), AttemptResult::failed, FailureReason::crashed);
  EXPECT_EQ(state("a"), "failed");
  ASSERT_EQ(attempts("a").size(), 2u);
  EXPECT_EQ(attempts("a")[0].outcome.error, "boom");
}

TEST_F(QueueTest, OnFailureStopsTheCellOrEverything) {
  FakeWorker gpus("g", 2);
  ExperimentSpec spec = spec_of({"a", "b", "c"}, Backend::cuda);
  spec.runs[2].cell_key = spec.runs[0].cell_key;
  spec.runs[2].repeat = 2;
  spec.on_failure = OnFailure::stop_cell;
  enqueue(spec);
  connect(gpus);
  finish(gpus, gpus.attempt_of("a"), AttemptResult::failed, FailureReason::internal);
  EXPECT_EQ(state("a"), "failed");
  EXPECT_EQ(state("c"), "cancelled");
  EXPECT_EQ(state("b"), "running/leased");

  ExperimentSpec all = spec_of({"x", "y", "z"}, Backend::cuda);
  all.on_failure = OnFailure::stop_all;
  finish(gpus, gpus.attempt_of("b"));
  enqueue(all, "t2");
  finish(gpus, gpus.attempt_of("x"), AttemptResult::failed, FailureReason::internal);
  EXPECT_EQ(state("z"), "cancelled");
  EXPECT_EQ(state("y"), "running/stopping");
  EXPECT_EQ(gpus.held.at(gpus.attempt_of("y")).stop_reason, StopReason::cancelled);
  const auto events = runs_->events_after(0, 0, row("z").run.id);
  EXPECT_EQ(events->back().cause, "x failed and on_failure is \"stop_all\"");
}

// --- people --------------------------------------------------------------------------------------------------------

TEST_F(QueueTest, CancelReachesRunsInEveryState) {
  FakeWorker worker("w");
  ExperimentSpec spec = spec_of({"runs", "waits", "held", "backs_off"});
  spec.retry = {.max_attempts = 2, .on = {FailureReason::crashed}, .backoff_s = 60};
  enqueue(spec);
  changed(hold({.names = {"runs", "waits", "held"}}, ""));
  connect(worker);
  finish(worker, worker.attempt_of("backs_off"), AttemptResult::failed, FailureReason::crashed);
  changed(release({.names = {"runs", "waits"}}, ""));
  EXPECT_EQ(state("runs") + " " + state("waits") + " " + state("held") + " " + state("backs_off"),
            "running/leased queued held retry_wait");

  const ChangeAnswer answer = changed(cancel({}, true, "req-1"));
  EXPECT_THAT(answer.changed, testing::UnorderedElementsAre("runs", "waits", "held", "backs_off"));
  EXPECT_EQ(state("runs") + " " + state("waits") + " " + state("held") + " " + state("backs_off"),
            "running/stopping cancelled cancelled cancelled");
  const int64_t attempt = worker.attempt_of("runs");
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::cancelled);
  worker.end(attempt, AttemptResult::cancelled);
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("runs"), "cancelled");
  EXPECT_THAT(changed(cancel({.names = {"runs"}}, false, "")).unchanged, ElementsAre("runs: it is cancelled already"));
}

TEST_F(QueueTest, ACancelledRunIsNotRevivedByARacingRetry) {
  FakeWorker worker("w");
  ExperimentSpec spec = spec_of({"a"});
  spec.retry = {.max_attempts = 9, .on = {FailureReason::crashed}, .backoff_s = 0};
  enqueue(spec);
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  // All in one commit: the cancel, a retry, and the crash that a policy would retry.
  ASSERT_TRUE(cancel({.names = {"a"}}, false, "").ok());
  EXPECT_THAT(retry({.names = {"a"}}, false, "")->unchanged,
              ElementsAre("a: only failed and cancelled runs can be retried; it is running"));
  worker.end(attempt, AttemptResult::failed, FailureReason::crashed);
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "cancelled");
}

TEST_F(QueueTest, ChangesOfOneCommitSeeOneAnother) {
  enqueue(spec_of({"a"}));
  ASSERT_TRUE(cancel({.names = {"a"}}, false, "").ok());
  ASSERT_THAT(retry({.names = {"a"}}, false, "")->changed, ElementsAre("a"));
  ASSERT_THAT(hold({.names = {"a"}}, "")->changed, ElementsAre("a"));
  commit();
  EXPECT_EQ(state("a"), "held");
}

TEST_F(QueueTest, ARunCancelledInTheSameCommitIsNotLeased) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b"}));
  worker.connect(*queue_);
  commit();
  finish(worker, worker.attempt_of("a"));
  worker.disconnect(*queue_);
  commit();
  enqueue(spec_of({"c"}), "t2");
  worker.connect(*queue_);
  ASSERT_TRUE(cancel({.names = {"c"}}, false, "").ok());
  commit();
  EXPECT_EQ(state("c"), "cancelled");
}

TEST_F(QueueTest, RetryFailedAddsAnAttemptAndKeepsTheOld) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b"}));
  connect(worker);
  finish(worker, worker.attempt_of("a"), AttemptResult::failed, FailureReason::data_error);
  finish(worker, worker.attempt_of("b"));
  EXPECT_THAT(changed(retry({}, true, "r1")).changed, ElementsAre("a"));
  ASSERT_NE(worker.attempt_of("a"), 0);
  EXPECT_EQ(worker.held.begin()->second.order.attempt, 2);
  EXPECT_THAT(worker.held.begin()->second.order.folder, HasSubstr("/a/attempt2"));
  finish(worker, worker.attempt_of("a"));
  EXPECT_EQ(state("a"), "completed");
  ASSERT_EQ(attempts("a").size(), 2u);
  EXPECT_EQ(attempts("a")[0].outcome.reason, FailureReason::data_error);
  EXPECT_EQ(summary(attempts("a")[0].id).steps_observed, 10);
  // The same request again does nothing more, and says what it said.
  EXPECT_THAT(changed(retry({}, true, "r1")).changed, ElementsAre("a"));
  EXPECT_EQ(attempts("a").size(), 2u);
}

TEST_F(QueueTest, ARequestIdIsAnsweredOnceAlsoWithinACommitAndAfterARestart) {
  enqueue(spec_of({"a", "b"}));
  ASSERT_THAT(cancel({.names = {"a"}}, false, "id")->changed, ElementsAre("a"));
  EXPECT_THAT(cancel({.names = {"a"}}, false, "id")->changed, ElementsAre("a"));
  EXPECT_THAT(hold({}, "id").error().message, HasSubstr("was used for cancel"));
  commit();
  restart();
  EXPECT_THAT(cancel({.names = {"a"}}, false, "id")->changed, ElementsAre("a"));
  EXPECT_EQ(hold({}, "id").error().code, ErrorCode::invalid_argument);
}

TEST_F(QueueTest, AHeldQueueStartsNothingAlsoAfterARestart) {
  FakeWorker worker("w");
  EXPECT_THAT(changed(hold({}, "")).changed, ElementsAre("the queue"));
  EXPECT_THAT(changed(hold({}, "")).unchanged, ElementsAre("the queue: it is held already"));
  enqueue(spec_of({"a"}));
  connect(worker);
  EXPECT_EQ(worker.attempt_of("a"), 0);
  worker.cut();
  restart();
  EXPECT_TRUE(queue_->held());
  connect(worker);
  EXPECT_EQ(worker.attempt_of("a"), 0);
  changed(release({}, ""));
  EXPECT_NE(worker.attempt_of("a"), 0);
}

TEST_F(QueueTest, WhoFollowsTheFeedIsWokenByEveryCommitThatAddsToIt) {
  int woken = 0;
  queue_->on_events([&] { ++woken; });
  const auto events_of = [&](const std::function<void()>& input) {
    const int before = woken;
    const int64_t last = *runs_->last_event_id();
    input();
    commit();
    EXPECT_EQ(woken > before, *runs_->last_event_id() > last);
    return woken > before;
  };
  FakeWorker worker("w");
  EXPECT_TRUE(events_of([&] { worker.connect(*queue_); })) << "a greeting";
  EXPECT_TRUE(events_of([&] { EXPECT_TRUE(queue_->enqueue(spec_of({"a"}), "t1", "").ok()); })) << "runs, and a lease";
  EXPECT_TRUE(events_of([&] { worker.tell_started(*queue_, 1); }));
  worker.make_steps(1, 2);
  EXPECT_TRUE(events_of([&] { worker.tell_steps(*queue_, 1); })) << "its first step";
  worker.make_steps(1, 2);
  EXPECT_FALSE(events_of([&] { worker.tell_steps(*queue_, 1); })) << "steps alone are no event";
  EXPECT_FALSE(events_of([&] { worker.heartbeat(*queue_, Phase::checkpoint); })) << "nor is a phase";
  EXPECT_TRUE(events_of([&] { EXPECT_TRUE(hold({}, "").ok()); }));
  EXPECT_TRUE(events_of([&] { worker.disconnect(*queue_); }));
}

TEST_F(QueueTest, WrongRequestsAreRefused) {
  EXPECT_THAT(cancel({}, false, "").error().message, HasSubstr("name runs, give a tag"));
  EXPECT_THAT(retry({}, false, "").error().message, HasSubstr("name runs, give a tag"));
  EXPECT_EQ(cancel({.names = {"nobody"}}, false, "").error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace assay
