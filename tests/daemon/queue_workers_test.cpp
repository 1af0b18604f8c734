// Leases, restarts and lost workers.
#include <sys/resource.h>

#include <csignal>
#include <map>
#include <random>

#include "base/limits.h"
#include "queue_fixture.h"

namespace assay {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(QueueTest, ARestartedDaemonTakesOverWhatRuns) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  begin(worker, attempt, 4);
  worker.cut();
  restart();
  EXPECT_EQ(queue_->connected_workers(), 0);
  worker.make_steps(attempt, 3);
  connect(worker);
  EXPECT_EQ(worker.held.at(attempt).acked, 4);
  worker.held.at(attempt).acked = 0;  // sends everything again
  worker.tell_steps(*queue_, attempt);
  worker.end(attempt);
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "completed");
  EXPECT_EQ(summary(attempt).steps_observed, 7);
  EXPECT_EQ(attempts("a").size(), 1u);
}

TEST_F(QueueTest, SilenceMakesAnAttemptUnreachableAndNothingElse) {
  FakeWorker worker("w"), other("x");
  enqueue(spec_of({"a"}));
  connect(worker);
  connect(other);
  const int64_t attempt = worker.attempt_of("a");
  worker.tell_started(*queue_, attempt);
  worker.heartbeat(*queue_);
  commit();
  worker.disconnect(*queue_);
  commit();
  pass_ms(limits::lease_ms - 1);
  EXPECT_EQ(state("a"), "running/running");
  pass_ms(1);
  EXPECT_EQ(state("a"), "running/unreachable");
  pass_ms(100 * limits::lease_ms);
  EXPECT_EQ(state("a"), "running/unreachable");  // never started again on suspicion
  EXPECT_EQ(other.attempt_of("a"), 0);
  worker.cut();
  other.cut();
  restart();
  EXPECT_EQ(state("a"), "running/unreachable");
  connect(worker);
  EXPECT_EQ(state("a"), "running/running");
  finish(worker, attempt);
  EXPECT_EQ(state("a"), "completed");
  EXPECT_EQ(attempts("a").size(), 1u);
}

TEST_F(QueueTest, ADeviceOnWhichOthersComputeGetsNoRunUntilTheyHaveEnded) {
  FakeWorker worker("w", 2);
  worker.occupied["w-gpu0"] = "python3 (pid 7)";
  enqueue(spec_of({"a", "b"}, Backend::cuda));
  connect(worker);
  const int64_t a = worker.attempt_of("a");
  ASSERT_NE(a, 0);
  EXPECT_EQ(worker.held.at(a).order.device_ids, std::vector<std::string>{"w-gpu1"});
  EXPECT_EQ(worker.attempt_of("b"), 0);

  worker.cut();
  restart();  // what a daemon knew of devices is in the store, and the next greeting says it again
  connect(worker);
  EXPECT_EQ(worker.attempt_of("b"), 0);

  worker.occupied.clear();
  worker.heartbeat(*queue_);
  commit();
  const int64_t b = worker.attempt_of("b");
  ASSERT_NE(b, 0);
  EXPECT_EQ(worker.held.at(b).order.device_ids, std::vector<std::string>{"w-gpu0"});
}

TEST_F(QueueTest, ARunRefusedForAnOccupiedDeviceGetsAnotherAtOnce) {
  FakeWorker worker("w", 2);
  enqueue(spec_of({"a"}, Backend::cuda));
  connect(worker);
  const int64_t first = worker.attempt_of("a");
  const std::string device = worker.held.at(first).order.device_ids.at(0);
  worker.occupied = {{device, "python3 (pid 7)"}, {"another's", "nobody we know"}};
  worker.heartbeat(*queue_);
  worker.tell_refused(*queue_, first, device + " is used by python3 (pid 7)");
  commit();
  const int64_t second = worker.attempt_of("a");
  ASSERT_NE(second, 0);
  EXPECT_NE(worker.held.at(second).order.device_ids.at(0), device);
  finish(worker, second);
  EXPECT_EQ(state("a"), "completed");
}

TEST_F(QueueTest, AnAutomaticRunWaitsForGpusThatOthersUse) {
  FakeWorker gpus("w", 1), cpu("x");
  gpus.occupied["w-gpu0"] = "python3 (pid 7)";
  enqueue(spec_of({"a"}, Backend::automatic));
  connect(gpus);
  connect(cpu);
  EXPECT_EQ(cpu.attempt_of("a"), 0);
  gpus.occupied.clear();
  gpus.heartbeat(*queue_);
  commit();
  const int64_t attempt = gpus.attempt_of("a");
  ASSERT_NE(attempt, 0);
  gpus.tell_refused(*queue_, attempt, "no space left");  // no lease for a while, but still a worker with a GPU
  commit();
  EXPECT_EQ(cpu.attempt_of("a"), 0);
  pass_ms(limits::refused_pause_min_ms);
  EXPECT_NE(gpus.attempt_of("a"), 0);
}

TEST_F(QueueTest, OnlyTheWorkerThatNamedADeviceLastSpeaksForIt) {
  FakeWorker first("w", 1), second("x", 1);
  second.hello().devices[0].id = "w-gpu0";
  connect(first);
  connect(second);
  first.occupied["w-gpu0"] = "a trainer of the other worker";
  first.heartbeat(*queue_);
  commit();
  EXPECT_EQ(runs_->list_devices()->at(0).device.drained_by, "");
  second.hello().devices.clear();
  connect(second);
  first.occupied.clear();
  first.heartbeat(*queue_);
  first.occupied["w-gpu0"] = "python3 (pid 7)";
  first.heartbeat(*queue_);
  commit();  // of a device that is no longer there: nothing fails
  EXPECT_TRUE(first.connected());
}

TEST_F(QueueTest, AWorkerThatComesBackWithoutALeaseProvesItGone) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t first = worker.attempt_of("a");
  worker.tell_started(*queue_, first);
  commit();
  worker.die();
  connect(worker);
  const int64_t second = worker.attempt_of("a");
  EXPECT_NE(second, 0);
  EXPECT_NE(second, first);
  const auto rows = attempts("a");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].outcome.reason, FailureReason::worker_lost);
  EXPECT_EQ(rows[0].outcome.error, "worker w came back without it");
  EXPECT_EQ(row("a").run.lost_attempts, 1);
  EXPECT_GT(rows[1].lease_epoch, rows[0].lease_epoch);
}

TEST_F(QueueTest, AHostThatWasStartedAnewProvesItGoneForItsFormerWorkers) {
  FakeWorker worker("w", 0, "h1"), same_host("x", 0, "h1"), other_host("y", 0, "h2");
  enqueue(spec_of({"a"}));
  connect(worker);
  worker.tell_started(*queue_, worker.attempt_of("a"));
  commit();
  worker.die();
  other_host.hello().boot_id = "boot-9";
  connect(other_host);
  EXPECT_EQ(state("a"), "running/starting");
  same_host.hello().boot_id = "boot-2";
  connect(same_host);
  EXPECT_EQ(attempts("a")[0].outcome.error, "host h1 was started anew");
  EXPECT_EQ(attempts("a").size(), 2u);
}

TEST_F(QueueTest, OldEpochsChangeNothingAndAreAbandoned) {
  FakeWorker worker("w"), ghost("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t first = worker.attempt_of("a");
  ghost.held = worker.held;  // a life of the worker that was thought dead
  worker.die();
  connect(worker);
  const int64_t second = worker.attempt_of("a");

  ghost.connect(*queue_);  // says that it holds the first attempt, and not the second
  commit();
  EXPECT_THAT(ghost.abandoned, ElementsAre(first));
  EXPECT_FALSE(worker.connected());
  EXPECT_EQ(worker.closed, "the worker has opened a newer session");
  EXPECT_THAT(attempts("a"), testing::SizeIs(1)) << "none of them was heard to start but the live one";

  connect(worker);
  EXPECT_THAT(worker.abandoned, ElementsAre(second));
  // One by one, with an epoch that is not the live one.
  const int64_t live = worker.attempt_of("a") != 0 ? worker.attempt_of("a") : attempts("a").back().id;
  const LeaseKey stale{live, attempts("a").back().lease_epoch - 1};
  const std::string before = state("a");
  queue_->steps(worker.link(), {stale, 1, {StepMetrics{}}});
  queue_->heartbeat(worker.link(), {{{stale, Phase::step, 5}}, {}});
  queue_->report(worker.link(),
                 {stale, AttemptNews::ended, AttemptOutcome{.result = AttemptResult::completed}, "", -1, ""});
  worker.abandoned.clear();
  commit();
  EXPECT_EQ(worker.abandoned.size(), 3u);
  EXPECT_EQ(state("a"), before);
  EXPECT_EQ(summary(live).steps_observed, 0);
}

TEST_F(QueueTest, AnEndWhoseReceiptWasLostIsAcknowledgedAgain) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  const auto held = worker.held;
  finish(worker, attempt);
  worker.held = held;  // it never saw the receipt
  worker.end(attempt);
  worker.receipts.clear();
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_THAT(worker.receipts, ElementsAre(AttemptNews::ended));
  EXPECT_THAT(worker.held, IsEmpty());
  EXPECT_EQ(attempts("a").size(), 1u);
}

TEST_F(QueueTest, ARefusedLeaseIsOfferedAgainLater) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b"}));
  connect(worker);
  worker.tell_refused(*queue_, worker.attempt_of("a"), "no space left");
  commit();
  EXPECT_EQ(state("a"), "queued");
  EXPECT_EQ(state("b"), "queued");  // not offered to it either
  EXPECT_EQ(*queue_->ms_to_next_tick(), limits::refused_pause_min_ms);
  EXPECT_THAT(attempts("a"), IsEmpty()) << "what never started is no attempt";
  EXPECT_EQ(row("a").run.attempts, 0);
  EXPECT_FALSE(row("a").latest);
  EXPECT_EQ(*runs_->why_not_started(row("a").run.id), "worker w refused the lease: no space left");
  const auto feed = *runs_->events_after(0, 0, row("a").run.id);
  const auto event =
      std::find_if(feed.begin(), feed.end(), [](const auto& e) { return e.kind == EventKind::attempt_not_started; });
  ASSERT_NE(event, feed.end());
  EXPECT_EQ(event->cause, "worker w refused the lease: no space left");
  pass_ms(limits::refused_pause_min_ms - 1);
  EXPECT_EQ(worker.attempt_of("a"), 0);
  pass_ms(1);
  worker.tell_refused(*queue_, worker.attempt_of("a"), "no space left");
  commit();
  EXPECT_EQ(*queue_->ms_to_next_tick(), 2 * limits::refused_pause_min_ms);
  pass_ms(2 * limits::refused_pause_min_ms);
  ASSERT_NE(worker.attempt_of("a"), 0);
  EXPECT_EQ(*runs_->why_not_started(row("a").run.id), "") << "it is leased again";
  finish(worker, worker.attempt_of("a"));
  ASSERT_EQ(attempts("a").size(), 1u);
  EXPECT_EQ(attempts("a")[0].n, 1) << "two refusals took no number";
  worker.tell_refused(*queue_, worker.attempt_of("b"), "again");
  commit();
  EXPECT_EQ(*queue_->ms_to_next_tick(), limits::refused_pause_min_ms);  // a start made up for it
}

TEST_F(QueueTest, AStuckTrainerIsStoppedAndItsEndIsStalled) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  worker.tell_started(*queue_, attempt);
  for (int64_t t = 0; t < limits::step_deadline_ms + limits::heartbeat_ms; t += limits::heartbeat_ms) {
    worker.heartbeat(*queue_);
    pass_ms(limits::heartbeat_ms);
  }
  EXPECT_EQ(state("a"), "running/stopping");
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::stalled);
  worker.cut();
  restart();
  worker.held.at(attempt).stop_reason = StopReason::none;
  connect(worker);
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::stalled);  // said again
  worker.end(attempt, AttemptResult::failed, FailureReason::stalled, "no progress");
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "failed");
}

TEST_F(QueueTest, ATimeoutStopsTheRun) {
  FakeWorker worker("w");
  ExperimentSpec spec = spec_of({"a"});
  spec.runs[0].config.train.timeout_s = 20;
  enqueue(spec);
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  EXPECT_EQ(worker.held.at(attempt).order.timeout_s, 20);
  worker.tell_started(*queue_, attempt);
  commit();
  pass_ms(19'999);
  EXPECT_EQ(state("a"), "running/starting");
  pass_ms(1);
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::timeout);
  worker.cut();
  restart();
  worker.held.at(attempt).stop_reason = StopReason::none;
  connect(worker);
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::timeout) << "a restart knows why";
}

TEST_F(QueueTest, WhatEndsWithItsWorkerAfterARestartIsStillNobodysFailure) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  begin(worker, attempt, 3);
  queue_->stop_workers("stopped by assay down");
  commit();
  restart();  // before the worker could tell of the end
  worker.die();
  connect(worker);
  EXPECT_EQ(attempts("a").at(0).outcome.result, AttemptResult::stopped);
  EXPECT_EQ(attempts("a").at(0).stop, StopReason::worker_stopped);
  EXPECT_EQ(row("a").run.lost_attempts, 0);
}

TEST_F(QueueTest, AnUnreachableAttemptIsToldToStopForTheSameReasonAfterARestart) {
  FakeWorker worker("w");
  ExperimentSpec spec = spec_of({"a"});
  spec.runs[0].config.train.timeout_s = 20;
  enqueue(spec);
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  begin(worker, attempt, 3);
  pass_ms(20'000);
  EXPECT_EQ(state("a"), "running/stopping");
  worker.disconnect(*queue_);
  pass_ms(limits::lease_ms);
  EXPECT_EQ(state("a"), "running/unreachable");
  restart();
  worker.held.at(attempt).stop_reason = StopReason::none;
  connect(worker);
  EXPECT_EQ(state("a"), "running/stopping");
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::timeout);
}

TEST_F(QueueTest, ALeaseThatAConnectedWorkerStopsNamingIsLost) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  worker.tell_started(*queue_, attempt);
  commit();
  worker.held.clear();
  for (int64_t t = 0; t < limits::lease_ms; t += limits::heartbeat_ms) {
    worker.heartbeat(*queue_);
    pass_ms(limits::heartbeat_ms);
  }
  EXPECT_EQ(attempts("a")[0].outcome.error, "worker w does not name it any longer");
  EXPECT_THAT(worker.abandoned, ElementsAre(attempt));
  EXPECT_NE(worker.attempt_of("a"), 0);
}

TEST_F(QueueTest, AGapInTheMetricsEndsTheSession) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const LeaseKey lease = worker.held.begin()->second.order.lease;
  queue_->steps(worker.link(), {lease, 5, {StepMetrics{}}});
  EXPECT_FALSE(worker.connected());
  EXPECT_EQ(summary(lease.attempt_id).steps_observed, 0);
}

// No file can grow or be written: what a full disk does.
class FullDisk {
 public:
  FullDisk() {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit none{0, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(QueueTest, WhatCannotBeStoredIsNotAcknowledgedAndIsToldAgain) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  worker.end(attempt);
  {
    FullDisk full;
    worker.tell_end(*queue_, attempt);
    ASSERT_TRUE(cancel({.names = {"b"}}, false, "").ok());
    const Status failed = queue_->commit();
    ASSERT_FALSE(failed.ok());
    EXPECT_THAT(failed.error().message, HasSubstr("queue.db"));
  }
  EXPECT_THAT(worker.receipts, IsEmpty());
  EXPECT_EQ(worker.closed, "the daemon could not store its state; come back");
  EXPECT_EQ(state("a"), "running/leased");
  EXPECT_EQ(state("b"), "queued");
  // The writer stays stopped until the daemon is started again; nothing is leased or acknowledged meanwhile.
  worker.connect(*queue_);
  EXPECT_FALSE(queue_->commit().ok());
  EXPECT_FALSE(worker.connected());
  restart();
  connect(worker);
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "completed");
  EXPECT_EQ(attempts("a").size(), 1u);
}

TEST_F(QueueTest, StoppingWorkersPutsTheirRunsBack) {
  FakeWorker worker("w");
  enqueue(spec_of({"a", "b"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  worker.tell_started(*queue_, attempt);
  commit();
  queue_->stop_workers("stopped by assay down");
  commit();
  EXPECT_TRUE(worker.draining);
  EXPECT_EQ(worker.held.at(attempt).stop_reason, StopReason::worker_stopped);
  EXPECT_FALSE(queue_->stopped());
  worker.end(attempt, AttemptResult::stopped, FailureReason::none, "stopped with its worker");
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_TRUE(queue_->stopped());
  EXPECT_EQ(state("a"), "queued");
  EXPECT_EQ(row("a").run.lost_attempts, 0);
  EXPECT_EQ(row("a").run.stopped_attempts, 1);
  EXPECT_EQ(attempts("a")[0].outcome.result, AttemptResult::stopped);
  EXPECT_THAT(worker.held, IsEmpty());  // and nothing new
  restart();
  EXPECT_EQ(row("a").run.stopped_attempts, 1);
}

TEST_F(QueueTest, AStopBeforeTheTrainerStartedLeavesNoAttempt) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  queue_->stop_workers("stopped by assay down");
  commit();
  worker.end(attempt, AttemptResult::stopped, FailureReason::none, "stopped with its worker");
  worker.tell_end(*queue_, attempt);
  commit();
  EXPECT_EQ(state("a"), "queued");
  EXPECT_THAT(attempts("a"), IsEmpty());
  EXPECT_EQ(row("a").run.attempts, 0);
  EXPECT_THAT(worker.receipts, testing::Contains(AttemptNews::ended));
}

TEST_F(QueueTest, ALeaseOfAnotherQueueIsNotTakenForOneWithTheSameNumbers) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const int64_t attempt = worker.attempt_of("a");
  worker.make_steps(attempt, 3);
  worker.held.at(attempt).order.attempt_key = "another store/1/1/1";
  connect(worker);
  EXPECT_THAT(worker.abandoned, ElementsAre(attempt));
  EXPECT_EQ(state("a"), "running/leased") << "it is given again, under other numbers";
  EXPECT_NE(worker.attempt_of("a"), attempt);
  EXPECT_EQ(summary(attempt).steps_observed, 0);
}

TEST_F(QueueTest, ALeaseNamesTheAttemptsWhoseCheckpointsItMayContinue) {
  FakeWorker worker("w");
  enqueue(spec_of({"a"}));
  connect(worker);
  const auto lease = [&] { return worker.held.at(worker.attempt_of("a")).order; };
  const std::string first = lease().attempt_key;
  EXPECT_THAT(first, testing::StartsWith(runs_->store_id() + "/"));
  EXPECT_THAT(lease().earlier_keys, IsEmpty());
  finish(worker, worker.attempt_of("a"), AttemptResult::failed, FailureReason::crashed);
  changed(retry({.names = {"a"}}, false, ""));
  const std::string second = lease().attempt_key;
  EXPECT_NE(second, first);
  EXPECT_THAT(lease().earlier_keys, ElementsAre(first));
  worker.tell_refused(*queue_, worker.attempt_of("a"), "busy");  // it made no checkpoint
  commit();
  pass_ms(limits::refused_pause_min_ms);
  EXPECT_THAT(lease().earlier_keys, ElementsAre(first));
  EXPECT_NE(lease().attempt_key, second);
}

TEST_F(QueueTest, NobodyIsConnectedToADaemonThatHasJustStarted) {
  FakeWorker worker("w");
  connect(worker);
  EXPECT_EQ(runs_->list_workers()->at(0).state, WorkerState::connected);
  worker.cut();
  restart();
  EXPECT_EQ(runs_->list_workers()->at(0).state, WorkerState::disconnected);
}

// Seeded chaos: daemon and workers are killed and cut at random, between staging and commit too, and others' processes
// come to devices and go. In the end every run is completed, none was executed twice at once (FakeWorker throws), and
// every step is stored once.
class QueueChaos : public QueueTest, public testing::WithParamInterface<unsigned> {};

TEST_P(QueueChaos, LosesNothingAndDoublesNothing) {
  constexpr int64_t steps = 10;
  std::mt19937 random(GetParam());
  const auto one_in = [&](unsigned n) { return random() % n == 0; };
  std::vector<std::string> names;
  for (int i = 0; i < 20; ++i) names.push_back("r" + std::to_string(i));
  enqueue(spec_of(names, Backend::cuda));
  FakeWorker a("a", 2), b("b", 1);
  int kills = 0;
  for (int round = 0; round < 4'000; ++round) {
    const bool chaos = round < 1'500;
    for (FakeWorker* worker : {&a, &b}) {
      if (!worker->connected()) {
        if (!one_in(3)) continue;
        worker->connect(*queue_);
        if (chaos && one_in(3)) continue;  // its welcome is not committed yet when it goes on
        commit();
      }
      if (one_in(20)) worker->occupied[worker->id() + "-gpu0"] = "stranger " + std::to_string(random() % 2);
      if (one_in(chaos ? 10 : 3)) worker->occupied.clear();
      std::vector<int64_t> ids;
      for (const auto& [id, lease] : worker->held) ids.push_back(id);
      for (const int64_t id : ids) {
        if (!worker->connected() || !worker->held.contains(id)) continue;
        FakeWorker::Held& lease = worker->held.at(id);
        if (one_in(3)) worker->tell_started(*queue_, id);
        if (!lease.ended) worker->make_steps(id, std::min<int64_t>(random() % 4, steps - lease.steps));
        if (!lease.ended && lease.steps == steps) worker->end(id);
        worker->tell_steps(*queue_, id, 1 + random() % 5);
        if (lease.ended && lease.acked == steps) worker->tell_end(*queue_, id);
        if (!one_in(4)) commit();
      }
      if (worker->connected() && one_in(2)) worker->heartbeat(*queue_);
      if (chaos && one_in(20)) worker->disconnect(*queue_);
      if (chaos && one_in(30)) worker->die();
    }
    if (chaos && (one_in(10) || kills == 0)) {
      ++kills;
      a.cut();
      b.cut();
      restart();
    }
    for (const auto& [id, lease] : a.held) {
      if (lease.ended) continue;
      ASSERT_EQ(b.attempt_of(lease.order.run), 0) << lease.order.run << " is executed twice at once";
    }
    pass_ms(random() % 9'000);
    // Ends are told only after a commit has acknowledged the steps, so a round without chaos always moves on.
    if (runs_->count_runs({})->by_state[static_cast<size_t>(RunState::completed)] == 20) break;
  }
  EXPECT_GT(kills, 0);
  for (const std::string& name : names) {
    EXPECT_EQ(state(name), "completed") << name;
    const auto rows = attempts(name);
    EXPECT_EQ(summary(rows.back().id).steps_observed, steps) << name;
    for (size_t i = 0; i + 1 < rows.size(); ++i) EXPECT_EQ(rows[i].outcome.reason, FailureReason::worker_lost) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, QueueChaos, testing::Range(0u, 12u));

}  // namespace
}  // namespace assay
