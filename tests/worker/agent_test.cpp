// The worker's logic with fake processes, a fake daemon and a clock that the test moves.
#include "worker/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/limits.h"
#include "tests/support/fake_device_use.h"
#include "tests/support/fake_process.h"
#include "tests/support/fake_uplink.h"
#include "tests/support/manual_clock.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

constexpr LeaseKey key{12, 7};

class AgentTest : public testing::Test {
 protected:
  AgentTest() { start_worker(); }

  // A new life of the worker on the same home.
  void start_worker() {
    agent_ = std::make_unique<Agent>(
        home(), "host-1",
        std::vector<DeviceInfo>{{"cpu:host", DeviceKind::cpu, "CPU", 1 << 30}, {"GPU-a", DeviceKind::cuda, "H100", 80}},
        use_, RunnerContext{clock_, processes_, uplink_, "/bin/assay-trainer", true});
    const Status recovered = agent_->recover();
    ASSERT_TRUE(recovered.ok()) << recovered.error().message;
  }
  void restart_worker() {
    processes_.orphan_all();
    uplink_.clear();
    start_worker();
  }
  std::string home() const { return temp_.path() + "/home"; }
  AttemptFolder folder() const { return {temp_.path() + "/runs/a/attempt-1"}; }

  LeaseMessage lease(int64_t timeout_s = 0) const {
    return {key, 1, "a", "devices = 1\n", folder().path, temp_.path() + "/runs/a", timeout_s, {}, "store/1/12/99"};
  }
  void welcome(std::vector<StoredSeq> stored = {}) { agent_->handle(WelcomeMessage{5000, std::move(stored)}); }
  // Connected, one lease, its trainer running and known to the daemon.
  void run_lease(int64_t timeout_s = 0) {
    welcome();
    agent_->handle(lease(timeout_s));
    agent_->tick();
  }
  void write_steps(int64_t first, int64_t count) {
    auto journal = JournalWriter::open(folder().journal());
    ASSERT_TRUE(journal.ok());
    for (int64_t step = first; step < first + count; ++step) {
      StepMetrics m;
      m.step = step;
      m.peak_mem_mib = 100;
      ASSERT_TRUE(journal->append(m).ok());
    }
  }
  void write_completed() {
    AttemptOutcome outcome;
    outcome.result = AttemptResult::completed;
    outcome.step = 2;
    ASSERT_TRUE(write_result(folder(), outcome).ok());
  }
  void end_trainer(ExitStatus status) {
    processes_.end(processes_.last().identity.pid, status);
    agent_->tick();
  }
  const AttemptOutcome& ended() const {
    const AttemptEvent* event = uplink_.last(AttemptNews::ended);
    EXPECT_NE(event, nullptr) << "no ended event";
    static const AttemptOutcome none;
    return event ? *event->outcome : none;
  }
  bool lease_remembered() const { return std::filesystem::exists(home() + "/worker/leases/12.7"); }

  TempFolder temp_;
  ManualClock clock_;
  FakeProcesses processes_;
  FakeUplink uplink_;
  FakeDeviceUse use_;
  std::unique_ptr<Agent> agent_;
};

// --- the way of a run ----------------------------------------------------------------------------------------------

TEST_F(AgentTest, LeaseStartsTheTrainerInItsFolder) {
  run_lease();
  const auto& spawned = processes_.last().options;
  EXPECT_EQ(spawned.program, "/bin/assay-trainer");
  EXPECT_THAT(spawned.arguments,
              ElementsAre("--config", folder().config(), "--folder", folder().path, "--attempt", "1", "--checkpoints",
                          temp_.path() + "/runs/a/checkpoints", "--attempt-key", "store/1/12/99", "--allow-faults"));
  EXPECT_EQ(spawned.output_path, folder().log());
  EXPECT_EQ(*read_file(folder().config()), "devices = 1\n");
  const AttemptEvent* started = uplink_.last(AttemptNews::started);
  ASSERT_NE(started, nullptr);
  EXPECT_EQ(started->lease, key);
  EXPECT_EQ(started->log_path, folder().log());
}

TEST_F(AgentTest, TrainerSeesTheGpusOfItsLeaseAndNoOthers) {
  welcome();
  LeaseMessage message = lease();
  message.device_ids = {"GPU-b", "GPU-a"};
  agent_->handle(message);
  EXPECT_EQ(processes_.last().options.environment.at("CUDA_VISIBLE_DEVICES"), "GPU-b,GPU-a");
}

// --- devices that others use ---------------------------------------------------------------------------------------

constexpr int64_t stranger = int64_t{1} << 30;  // above the largest process id of Linux

TEST_F(AgentTest, HelloNamesTheDevicesOnWhichOthersCompute) {
  const auto hello = [this] {
    clock_.advance_ms(limits::heartbeat_ms);
    return agent_->hello().occupied;
  };
  EXPECT_THAT(hello(), IsEmpty());
  use_.pids["GPU-a"] = {stranger};
  EXPECT_THAT(hello(), ElementsAre(Pair("GPU-a", "pid 1073741824")));
  use_.pids["GPU-a"] = {stranger, stranger + 1, stranger + 2};
  EXPECT_THAT(hello(), ElementsAre(Pair("GPU-a", "pid 1073741824 and 2 more")));
  use_.answers = false;
  use_.pids.clear();
  EXPECT_THAT(hello(), SizeIs(1)) << "not known to be free";
  use_.answers = true;
  EXPECT_THAT(hello(), IsEmpty());
}

TEST_F(AgentTest, WithoutADaemonTheDriverIsNotAskedAtEveryAttemptToConnect) {
  agent_->hello();
  const int questions = use_.questions;
  clock_.advance_ms(limits::reconnect_min_ms);
  agent_->hello();
  EXPECT_EQ(use_.questions, questions);
}

TEST_F(AgentTest, AProcessIsNamedWhereItCanBe) {
  use_.pids["GPU-a"] = {::getpid()};
  EXPECT_THAT(agent_->hello().occupied,
              ElementsAre(Pair("GPU-a", "worker_tests (pid " + std::to_string(::getpid()) + ")")));
}

TEST_F(AgentTest, ALeaseOfAnOccupiedDeviceIsRefusedAfterTheDaemonKnows) {
  welcome();
  agent_->tick();
  const size_t heartbeats = uplink_.heartbeats.size();
  use_.pids["GPU-a"] = {stranger};
  LeaseMessage message = lease();
  message.device_ids = {"cpu:host", "GPU-a"};
  agent_->handle(message);
  ASSERT_THAT(uplink_.heartbeats, SizeIs(heartbeats + 1));
  EXPECT_THAT(uplink_.heartbeats.back().occupied, ElementsAre(Pair("GPU-a", "pid 1073741824")));
  ASSERT_NE(uplink_.last(AttemptNews::refused), nullptr);
  EXPECT_EQ(uplink_.last(AttemptNews::refused)->message, "GPU-a is used by pid 1073741824");
  EXPECT_THAT(processes_.processes, IsEmpty());
  EXPECT_FALSE(lease_remembered());

  use_.pids.clear();
  clock_.advance_ms(5'000);
  agent_->tick();
  EXPECT_THAT(uplink_.heartbeats.back().occupied, IsEmpty()) << "the others have ended";
  agent_->handle(message);
  EXPECT_THAT(processes_.processes, SizeIs(1));
}

TEST_F(AgentTest, ItsOwnTrainersAreNoOthers) {
  welcome();
  LeaseMessage message = lease();
  message.device_ids = {"GPU-a"};
  agent_->handle(message);
  use_.pids["GPU-a"] = {processes_.last().identity.pid};
  EXPECT_THAT(agent_->hello().occupied, IsEmpty());
  restart_worker();
  EXPECT_THAT(agent_->hello().occupied, IsEmpty()) << "nor are those of its former life";
  use_.pids["GPU-a"].push_back(stranger);
  clock_.advance_ms(limits::heartbeat_ms);
  EXPECT_THAT(agent_->hello().occupied, SizeIs(1));
}

TEST_F(AgentTest, ALeaseWaitsUntilAnAbandonedTrainerHasLeftItsDevice) {
  run_lease();
  const pid_t old = processes_.last().identity.pid;
  processes_.last().stragglers = processes_.last().straggler_survives_kill = true;
  use_.pids["GPU-a"] = {old};
  agent_->handle(AbandonMessage{key});
  LeaseMessage next = lease();
  next.lease = {13, 8};
  next.folder = temp_.path() + "/runs/b/attempt-1";
  next.device_ids = {"GPU-a"};
  agent_->handle(next);
  ASSERT_NE(uplink_.last(AttemptNews::refused), nullptr);
  EXPECT_EQ(uplink_.last(AttemptNews::refused)->message, "the trainer of attempt 12 has not left GPU-a yet");
  EXPECT_THAT(uplink_.heartbeats.back().occupied, IsEmpty()) << "it is no other";
}

TEST_F(AgentTest, ATrainerThatHasEndedIsNoOther) {
  run_lease();
  use_.pids["GPU-a"] = {processes_.last().identity.pid};
  end_trainer({.exit_code = 1});
  agent_->handle(EventAckMessage{key, AttemptNews::ended});
  agent_->tick();
  EXPECT_THAT(agent_->hello().leases, IsEmpty());
  EXPECT_THAT(agent_->hello().occupied, IsEmpty()) << "the driver has not noticed yet";
  use_.pids["GPU-a"].push_back(stranger);
  clock_.advance_ms(limits::heartbeat_ms);
  EXPECT_THAT(agent_->hello().occupied, ElementsAre(Pair("GPU-a", "pid 1073741824")));
}

TEST_F(AgentTest, TrainerOfACpuLeaseSeesNoGpu) {
  welcome();
  LeaseMessage message = lease();
  message.device_ids = {"cpu:host"};
  agent_->handle(message);
  EXPECT_EQ(processes_.last().options.environment.at("CUDA_VISIBLE_DEVICES"), "");
}

TEST_F(AgentTest, StreamsStepsThenTheEndAndForgetsOnAcknowledgement) {
  run_lease();
  write_steps(0, 2);
  agent_->tick();
  write_steps(2, 1);
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_THAT(uplink_.steps(), ElementsAre(0, 1, 2));
  ASSERT_THAT(uplink_.batches, SizeIs(2));
  EXPECT_EQ(uplink_.batches[1].first_seq, 3);
  EXPECT_THAT(uplink_.order, ElementsAre("started", "metrics", "metrics", "ended"));
  EXPECT_EQ(ended().result, AttemptResult::completed);
  EXPECT_TRUE(processes_.last().reaped);

  agent_->tick();
  EXPECT_EQ(uplink_.order.size(), 4u) << "the end is sent once per connection";
  EXPECT_TRUE(lease_remembered());
  agent_->handle(EventAckMessage{key, AttemptNews::ended});
  agent_->tick();
  EXPECT_FALSE(lease_remembered());
  EXPECT_THAT(agent_->hello().leases, IsEmpty());
}

TEST_F(AgentTest, AcknowledgingAnotherEventForgetsNothing) {
  run_lease();
  agent_->handle(EventAckMessage{key, AttemptNews::started});
  agent_->tick();
  EXPECT_THAT(agent_->hello().leases, SizeIs(1));
}

TEST_F(AgentTest, ResentLeaseChangesNothing) {
  run_lease();
  agent_->handle(lease());
  EXPECT_THAT(processes_.processes, SizeIs(1));
  EXPECT_EQ(uplink_.last(AttemptNews::refused), nullptr);
}

TEST_F(AgentTest, ResumedStepIsReportedWhenTheTrainerKnowsIt) {
  run_lease();
  ASSERT_TRUE(write_progress(folder(), {Phase::step, 40}).ok());
  agent_->tick();
  agent_->tick();
  EXPECT_THAT(uplink_.order, ElementsAre("started", "resumed"));
  EXPECT_EQ(uplink_.last(AttemptNews::resumed)->resumed_from_step, 40);
}

TEST_F(AgentTest, HeartbeatsTellPhaseAndStepEveryInterval) {
  run_lease();
  ASSERT_TRUE(write_progress(folder(), {Phase::step, -1}).ok());
  write_steps(0, 3);
  agent_->tick();
  uplink_.heartbeats.clear();
  clock_.advance_ms(4999);
  agent_->tick();
  EXPECT_THAT(uplink_.heartbeats, IsEmpty());
  clock_.advance_ms(1);
  agent_->tick();
  ASSERT_THAT(uplink_.heartbeats, SizeIs(1));
  ASSERT_THAT(uplink_.heartbeats[0].leases, SizeIs(1));
  EXPECT_EQ(uplink_.heartbeats[0].leases[0].lease, key);
  EXPECT_EQ(uplink_.heartbeats[0].leases[0].phase, Phase::step);
  EXPECT_EQ(uplink_.heartbeats[0].leases[0].last_step, 2);
}

TEST_F(AgentTest, SleepsUntilTheHeartbeatWhenIdleAndPollsWhileARunIsLive) {
  welcome();
  agent_->tick();
  EXPECT_EQ(agent_->sleep_ms(), 5000);
  agent_->handle(lease());
  EXPECT_EQ(agent_->sleep_ms(), limits::live_poll_ms);
}

// --- the daemon goes away ------------------------------------------------------------------------------------------

TEST_F(AgentTest, NothingIsSentWhileOfflineAndEverythingAfterwardsOnce) {
  run_lease();
  write_steps(0, 2);
  agent_->tick();
  agent_->disconnected();
  uplink_.clear();
  write_steps(2, 3);
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_THAT(uplink_.order, IsEmpty());
  EXPECT_THAT(agent_->hello().leases, SizeIs(1)) << "held until the daemon knows how it ended";
  welcome({{key, 2}});
  agent_->tick();
  EXPECT_THAT(uplink_.steps(), ElementsAre(2, 3, 4));
  EXPECT_EQ(uplink_.batches[0].first_seq, 3);
  EXPECT_THAT(uplink_.order, ElementsAre("started", "metrics", "ended")) << "a start is told after every greeting";
}

TEST_F(AgentTest, AnAttemptThatEndsBeforeItIsLookedAtStillTellsWhereItResumed) {
  welcome();
  agent_->handle(lease());
  ASSERT_TRUE(write_progress(folder(), {Phase::step, 4}).ok());
  write_steps(4, 2);
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_THAT(uplink_.order, ElementsAre("started", "metrics", "ended"));
  EXPECT_EQ(uplink_.last(AttemptNews::started)->resumed_from_step, 4);
}

TEST_F(AgentTest, ResendsWhatTheDaemonLost) {
  run_lease();
  write_steps(0, 4);
  agent_->tick();
  agent_->handle(MetricAckMessage{{key, 4}});
  agent_->disconnected();
  uplink_.clear();
  welcome({{key, 1}});  // restored from a backup: its word counts, not what we remember
  agent_->tick();
  EXPECT_THAT(uplink_.steps(), ElementsAre(1, 2, 3));
}

TEST_F(AgentTest, AnEndThatWasSentButNotAcknowledgedIsSentAgain) {
  run_lease();
  write_completed();
  end_trainer({.exit_code = 0});
  agent_->disconnected();
  uplink_.clear();
  welcome();
  agent_->tick();
  EXPECT_THAT(uplink_.order, ElementsAre("started", "ended"));
}

TEST_F(AgentTest, SlowDaemonIsNotFlooded) {
  run_lease();
  write_steps(0, limits::unacked_steps + 1500);
  agent_->tick();
  agent_->tick();
  EXPECT_THAT(uplink_.steps(), SizeIs(limits::unacked_steps));
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_EQ(uplink_.last(AttemptNews::ended), nullptr) << "the end comes after every step";
  agent_->handle(MetricAckMessage{{key, limits::unacked_steps}});
  agent_->tick();
  EXPECT_THAT(uplink_.steps(), SizeIs(limits::unacked_steps + 1500));
  EXPECT_EQ(ended().result, AttemptResult::completed);
}

// --- ends ----------------------------------------------------------------------------------------------------------

TEST_F(AgentTest, CrashNamesTheSignalTheStepAndTheLastLines) {
  run_lease();
  write_steps(0, 3);
  std::ofstream(folder().log()) << "step 2/10 | loss 9\n";
  end_trainer({.exit_code = -1, .signal = SIGSEGV});
  EXPECT_EQ(ended().result, AttemptResult::failed);
  EXPECT_EQ(ended().reason, FailureReason::crashed);
  EXPECT_THAT(ended().error, HasSubstr("SIGSEGV (Segmentation fault)"));
  EXPECT_EQ(ended().signal, SIGSEGV);
  EXPECT_EQ(ended().step, 3);
  EXPECT_EQ(ended().peak_mem_mib, 100);
  EXPECT_EQ(ended().log_tail, "step 2/10 | loss 9\n");
}

TEST_F(AgentTest, SigkillFromElsewhereMentionsMemory) {
  run_lease();
  end_trainer({.exit_code = -1, .signal = SIGKILL});
  EXPECT_EQ(ended().reason, FailureReason::crashed);
  EXPECT_THAT(ended().error, HasSubstr("possibly out of memory on this host"));
  EXPECT_EQ(ended().step, -1);
}

TEST_F(AgentTest, ExitCodeWithoutAResult) {
  run_lease();
  end_trainer({.exit_code = 70});
  EXPECT_EQ(ended().reason, FailureReason::internal);
  EXPECT_THAT(ended().error, HasSubstr("exit code 70"));
  EXPECT_EQ(ended().exit_code, 70);
}

TEST_F(AgentTest, TypedResultOfTheTrainerIsKept) {
  run_lease();
  AttemptOutcome result;
  result.result = AttemptResult::failed;
  result.reason = FailureReason::non_finite;
  result.error = "loss is nan";
  result.operation = "cross_entropy";
  result.step = 5;
  ASSERT_TRUE(write_result(folder(), result).ok());
  end_trainer({.exit_code = 6});
  EXPECT_EQ(ended().reason, FailureReason::non_finite);
  EXPECT_EQ(ended().operation, "cross_entropy");
  EXPECT_EQ(ended().step, 5);
  EXPECT_EQ(ended().exit_code, 6);
}

TEST_F(AgentTest, DamagedResultIsSaidNotGuessed) {
  run_lease();
  std::ofstream(folder().result()) << "{";
  end_trainer({.exit_code = 0});
  EXPECT_EQ(ended().reason, FailureReason::internal);
  EXPECT_THAT(ended().error, HasSubstr("result.json is damaged"));
}

TEST_F(AgentTest, DamagedJournalIsNoCompletedRun) {
  run_lease();
  write_steps(0, 3);
  std::fstream file(folder().journal(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(limits::journal_header_bytes + 30);
  file.put('\x7f');
  file.close();
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_EQ(ended().result, AttemptResult::failed);
  EXPECT_EQ(ended().reason, FailureReason::internal);
  EXPECT_THAT(ended().error, HasSubstr("damaged at byte"));
}

TEST_F(AgentTest, StragglersOfTheGroupAreKilledBeforeTheEndIsReported) {
  run_lease();
  auto& trainer = processes_.last();
  trainer.stragglers = trainer.straggler_survives_kill = true;
  write_completed();
  end_trainer({.exit_code = 0});
  agent_->tick();
  EXPECT_THAT(processes_.signals, Contains(Pair(trainer.identity.pid, SIGKILL)));
  EXPECT_FALSE(trainer.reaped) << "the group's number must stay taken";
  EXPECT_EQ(uplink_.last(AttemptNews::ended), nullptr);
  trainer.stragglers = false;
  agent_->tick();
  EXPECT_TRUE(trainer.reaped);
  EXPECT_EQ(ended().result, AttemptResult::completed);
}

// --- stopping ------------------------------------------------------------------------------------------------------

TEST_F(AgentTest, CancelTerminatesPolitely) {
  run_lease();
  agent_->handle(StopMessage{key, StopReason::cancelled});
  const pid_t pid = processes_.last().identity.pid;
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(pid, SIGTERM)));
  agent_->tick();
  EXPECT_EQ(uplink_.last(AttemptNews::stopping)->message, "cancelled");
  AttemptOutcome result;
  result.result = AttemptResult::cancelled;
  ASSERT_TRUE(write_result(folder(), result).ok());
  end_trainer({.exit_code = 9});
  EXPECT_EQ(ended().result, AttemptResult::cancelled);
  EXPECT_EQ(ended().error, "cancelled");
}

TEST_F(AgentTest, KillsTheGroupAfterTheGracePeriod) {
  run_lease();
  agent_->handle(StopMessage{key, StopReason::stalled});
  const pid_t pid = processes_.last().identity.pid;
  clock_.advance_ms(limits::stop_grace_ms - 1);
  agent_->tick();
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(pid, SIGTERM)));
  clock_.advance_ms(1);
  agent_->tick();
  agent_->tick();
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(pid, SIGTERM), Pair(pid, SIGKILL)));
  EXPECT_EQ(ended().reason, FailureReason::stalled);
  EXPECT_THAT(ended().error, HasSubstr("no progress in phase load"));
  EXPECT_THAT(ended().error, HasSubstr("was killed"));
  EXPECT_EQ(ended().signal, SIGKILL);
}

// Of a newer trainer: the phase known before stands.
TEST_F(AgentTest, APhaseThatNobodyKnowsIsNoOtherPhase) {
  run_lease();
  ASSERT_TRUE(write_progress(folder(), {.phase = Phase::checkpoint, .resumed_from_step = 3}).ok());
  clock_.advance_ms(5'000);
  agent_->tick();
  put_file(folder().progress(), R"({"phase": "evaluate", "resumed_from_step": 3})");
  clock_.advance_ms(5'000);
  agent_->tick();
  EXPECT_EQ(uplink_.heartbeats.back().leases.at(0).phase, Phase::checkpoint);
}

TEST_F(AgentTest, FirstStopReasonCounts) {
  run_lease();
  agent_->handle(StopMessage{key, StopReason::stalled});
  agent_->handle(StopMessage{key, StopReason::cancelled});
  EXPECT_THAT(processes_.signals, SizeIs(1));
  end_trainer({.exit_code = -1, .signal = SIGTERM});
  EXPECT_EQ(ended().reason, FailureReason::stalled);
}

TEST_F(AgentTest, RunThatCompletedBeforeTheStopReachedItIsCompleted) {
  run_lease();
  agent_->handle(StopMessage{key, StopReason::cancelled});
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_EQ(ended().result, AttemptResult::completed);
}

TEST_F(AgentTest, TimeLimitIsKeptWithoutADaemon) {
  run_lease(60);
  agent_->disconnected();
  clock_.advance_ms(60'000);
  agent_->tick();
  EXPECT_THAT(processes_.signals, IsEmpty());
  clock_.advance_ms(1);
  agent_->tick();
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(processes_.last().identity.pid, SIGTERM)));
  end_trainer({.exit_code = 9});
  welcome();
  agent_->tick();
  EXPECT_EQ(ended().reason, FailureReason::timeout);
  EXPECT_THAT(ended().error, HasSubstr("time limit of 60 s"));
}

TEST_F(AgentTest, AbandonKillsAndReportsNothing) {
  run_lease();
  uplink_.clear();
  agent_->handle(AbandonMessage{key});
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(processes_.last().identity.pid, SIGKILL)));
  agent_->tick();
  EXPECT_THAT(uplink_.order, IsEmpty());
  EXPECT_THAT(agent_->hello().leases, IsEmpty());
  EXPECT_FALSE(lease_remembered());
}

TEST_F(AgentTest, MessagesOfAnOldEpochAreIgnored) {
  run_lease();
  agent_->handle(StopMessage{{key.attempt_id, key.epoch - 1}, StopReason::cancelled});
  agent_->handle(AbandonMessage{{key.attempt_id, key.epoch - 1}});
  EXPECT_THAT(processes_.signals, IsEmpty());
}

TEST_F(AgentTest, SomeoneElsesSigtermIsTheHostsFaultNotTheRuns) {
  run_lease();
  AttemptOutcome result;
  result.result = AttemptResult::cancelled;
  ASSERT_TRUE(write_result(folder(), result).ok());
  end_trainer({.exit_code = 9});
  EXPECT_EQ(ended().result, AttemptResult::failed);
  EXPECT_EQ(ended().reason, FailureReason::worker_lost);
}

TEST_F(AgentTest, DrainTakesNoNewLeaseAndFinishesWithTheLast) {
  run_lease();
  agent_->handle(DrainMessage{});
  LeaseMessage second = lease();
  second.lease = {13, 8};
  agent_->handle(second);
  EXPECT_EQ(uplink_.last(AttemptNews::refused)->lease, second.lease);
  EXPECT_THAT(uplink_.last(AttemptNews::refused)->message, HasSubstr("draining"));
  EXPECT_FALSE(agent_->finished());
  write_completed();
  end_trainer({.exit_code = 0});
  agent_->handle(EventAckMessage{key, AttemptNews::ended});
  agent_->tick();
  EXPECT_TRUE(agent_->finished());
}

TEST_F(AgentTest, ShutDownStopsRunsAndWaitsABoundedTimeForTheDaemon) {
  run_lease();
  agent_->shut_down();
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(processes_.last().identity.pid, SIGTERM)));
  agent_->tick();
  EXPECT_FALSE(agent_->finished());
  end_trainer({.exit_code = 9});
  EXPECT_EQ(ended().result, AttemptResult::stopped);
  EXPECT_EQ(ended().reason, FailureReason::none);
  EXPECT_EQ(ended().error, "stopped with its worker");
  EXPECT_FALSE(agent_->finished());
  clock_.advance_ms(limits::farewell_ms);
  EXPECT_TRUE(agent_->finished());
  EXPECT_TRUE(lease_remembered()) << "the next life of the worker reports it";
}

// --- refusals ------------------------------------------------------------------------------------------------------

TEST_F(AgentTest, RefusesWhenTheFolderCannotBeMade) {
  welcome();
  LeaseMessage bad = lease();
  bad.folder = "/proc/no/such/folder";
  agent_->handle(bad);
  ASSERT_NE(uplink_.last(AttemptNews::refused), nullptr);
  EXPECT_THAT(uplink_.last(AttemptNews::refused)->message, HasSubstr("/proc/no"));
  EXPECT_THAT(agent_->hello().leases, IsEmpty());
  EXPECT_FALSE(lease_remembered());
}

TEST_F(AgentTest, RefusesWhenTheTrainerCannotBeStarted) {
  welcome();
  processes_.spawn_error = "cannot start /bin/assay-trainer: No such file or directory";
  agent_->handle(lease());
  EXPECT_EQ(uplink_.last(AttemptNews::refused)->message, processes_.spawn_error);
  EXPECT_FALSE(std::filesystem::exists(folder().path));
  processes_.spawn_error.clear();
  agent_->handle(lease());
  EXPECT_THAT(processes_.processes, SizeIs(1)) << "the same lease works once the trouble is gone";
}

// A queue restored from a backup numbers its attempts as before, with other ids.
TEST_F(AgentTest, AnAttemptIsExecutedOnceAndNeverUsesTheFolderOfAnother) {
  run_lease();
  write_steps(0, 3);
  write_completed();
  end_trainer({.exit_code = 0});
  agent_->handle(EventAckMessage{key, AttemptNews::ended});
  agent_->tick();
  const std::string journal = *read_file(folder().journal());
  agent_->handle(lease());
  EXPECT_THAT(uplink_.last(AttemptNews::refused)->message, HasSubstr("executed once"));
  ASSERT_THAT(processes_.processes, SizeIs(1));

  LeaseMessage other = lease();
  other.lease = {13, 8};
  other.attempt_key = "another";
  agent_->handle(other);
  ASSERT_THAT(processes_.processes, SizeIs(2));
  const AttemptFolder second{folder().path + ".2"};
  EXPECT_THAT(processes_.last().options.arguments, Contains(second.path));
  EXPECT_EQ(processes_.last().options.output_path, second.log());
  agent_->tick();
  EXPECT_EQ(uplink_.last(AttemptNews::started)->log_path, second.log());
  EXPECT_EQ(*read_file(folder().journal()), journal);

  restart_worker();
  ASSERT_THAT(agent_->hello().leases, SizeIs(1)) << "it finds that folder again";
  EXPECT_EQ(agent_->hello().leases[0].lease, other.lease);
}

// What it holds is found again when the whole home was moved between two lives of it.
TEST_F(AgentTest, AMovedHomeKeepsItsLeases) {
  welcome();
  LeaseMessage message = lease();
  message.run_folder = home() + "/runs/a";
  message.folder = message.run_folder + "/attempt1";
  agent_->handle(message);
  ASSERT_TRUE(write_result({message.folder}, {.result = AttemptResult::completed, .step = 2}).ok());
  end_trainer({.exit_code = 0});
  agent_.reset();
  const std::string moved = temp_.path() + "/moved";
  std::filesystem::rename(home(), moved);
  Agent agent(moved, "host-1", {}, use_, RunnerContext{clock_, processes_, uplink_, "/bin/assay-trainer", true});
  ASSERT_TRUE(agent.recover().ok());
  uplink_.clear();
  agent.handle(WelcomeMessage{5000, {}});
  agent.tick();
  EXPECT_EQ(uplink_.last(AttemptNews::started)->log_path, moved + "/runs/a/attempt1/trainer.log");
  EXPECT_EQ(ended().result, AttemptResult::completed);
}

// The database was deleted or an older copy put back, and `runs/` was kept: the same names come again.
TEST_F(AgentTest, FoldersOfForgottenAttemptsAreLeftAlone) {
  run_lease();
  write_completed();
  end_trainer({.exit_code = 0});
  agent_->handle(EventAckMessage{key, AttemptNews::ended});
  agent_->tick();
  const std::string result = *read_file(folder().result());
  for (const char* name : {"/attempt-1.2", "/attempt-1.3"}) {
    LeaseMessage again = lease();  // even the ids are the same
    again.attempt_key += name;
    again.earlier_keys = {"earlier", "earliest"};
    agent_->handle(again);
    agent_->tick();
    const AttemptFolder fresh{temp_.path() + "/runs/a" + name};
    EXPECT_EQ(uplink_.last(AttemptNews::started)->log_path, fresh.log());
    EXPECT_EQ((**read_lease(fresh)).attempt_key, again.attempt_key);
    EXPECT_THAT(
        processes_.last().options.arguments,
        testing::IsSupersetOf({std::string("--folder"), fresh.path, std::string("--attempt-key"), again.attempt_key,
                               std::string("--earlier-key"), std::string("earlier"), std::string("earliest")}));
    ASSERT_TRUE(write_result(fresh, {.result = AttemptResult::completed}).ok());
    end_trainer({.exit_code = 0});
    agent_->handle(EventAckMessage{key, AttemptNews::ended});
    agent_->tick();
  }
  EXPECT_EQ(*read_file(folder().result()), result);
}

TEST_F(AgentTest, RefusesTheSameNumbersOfAnotherQueueWhileTheyAreHeld) {
  run_lease();
  EXPECT_EQ(agent_->hello().leases[0].attempt_key, lease().attempt_key);
  LeaseMessage other = lease();
  other.attempt_key = "another/1/12/5";
  agent_->handle(other);
  ASSERT_NE(uplink_.last(AttemptNews::refused), nullptr);
  EXPECT_THAT(uplink_.last(AttemptNews::refused)->message, HasSubstr("another queue"));
}

TEST_F(AgentTest, RefusesAnotherEpochOfAHeldAttempt) {
  run_lease();
  LeaseMessage other = lease();
  other.lease.epoch = 8;
  agent_->handle(other);
  EXPECT_THAT(uplink_.last(AttemptNews::refused)->message, HasSubstr("held under epoch 7"));
}

// --- the worker dies and comes back --------------------------------------------------------------------------------

TEST_F(AgentTest, RestartedWorkerAdoptsALiveTrainer) {
  run_lease();
  write_steps(0, 2);
  agent_->tick();
  restart_worker();
  ASSERT_THAT(agent_->hello().leases, SizeIs(1));
  EXPECT_EQ(agent_->hello().leases[0].lease, key);
  welcome({{key, 2}});
  agent_->tick();
  write_steps(2, 1);
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_THAT(uplink_.steps(), ElementsAre(2));
  EXPECT_EQ(ended().result, AttemptResult::completed);
  EXPECT_THAT(processes_.processes, SizeIs(1)) << "nothing was started twice";
}

TEST_F(AgentTest, AdoptedTrainerThatDiesWithoutAResultIsACrashOfUnknownStatus) {
  run_lease();
  write_steps(0, 2);
  restart_worker();
  welcome({{key, 2}});
  agent_->tick();
  end_trainer({.exit_code = -1, .signal = SIGSEGV});
  EXPECT_EQ(ended().reason, FailureReason::crashed);
  EXPECT_THAT(ended().error, HasSubstr("exit status is not known"));
  EXPECT_EQ(ended().step, 2) << "the last stored step is read back from the journal";
  EXPECT_EQ(ended().signal, 0);
}

TEST_F(AgentTest, TrainerThatCompletedWhileNoWorkerWasThere) {
  run_lease();
  write_steps(0, 3);
  write_completed();
  processes_.end(processes_.last().identity.pid, {.exit_code = 0});
  restart_worker();
  welcome();
  agent_->tick();
  EXPECT_THAT(uplink_.steps(), ElementsAre(0, 1, 2));
  EXPECT_EQ(ended().result, AttemptResult::completed);
}

TEST_F(AgentTest, TrainerThatDiedWithTheWorkerIsTheWorkersLoss) {
  run_lease();
  processes_.end(processes_.last().identity.pid, {.exit_code = -1, .signal = SIGKILL});
  restart_worker();
  welcome();
  agent_->tick();
  EXPECT_EQ(ended().reason, FailureReason::worker_lost);
}

TEST_F(AgentTest, RestartOfTheHostIsTheWorkersLoss) {
  run_lease();
  LeaseRecord record = **read_lease(folder());
  record.trainer->boot_id = "another boot";
  ASSERT_TRUE(write_lease(folder(), record).ok());
  restart_worker();
  welcome();
  agent_->tick();
  EXPECT_EQ(ended().reason, FailureReason::worker_lost);
  EXPECT_THAT(ended().error, HasSubstr("host was restarted"));
}

TEST_F(AgentTest, WorkerKilledBetweenSpawnAndItsRecordFindsTheTrainerByItsFolder) {
  run_lease();
  LeaseRecord record = **read_lease(folder());
  const ProcessIdentity trainer = *record.trainer;
  record.trainer.reset();
  ASSERT_TRUE(write_lease(folder(), record).ok());
  restart_worker();
  EXPECT_EQ((**read_lease(folder())).trainer, trainer);
  welcome();
  agent_->handle(StopMessage{key, StopReason::cancelled});
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(trainer.pid, SIGTERM)));
}

TEST_F(AgentTest, DamagedLeaseFileStillFindsTheTrainer) {
  run_lease();
  std::ofstream(folder().lease()) << "not json";
  restart_worker();
  ASSERT_THAT(agent_->hello().leases, SizeIs(1));
  EXPECT_EQ(agent_->hello().leases[0].lease, key);
  welcome();
  agent_->tick();
  EXPECT_EQ(uplink_.last(AttemptNews::ended), nullptr);
  write_completed();
  end_trainer({.exit_code = 0});
  EXPECT_EQ(ended().result, AttemptResult::completed);
}

TEST_F(AgentTest, WorkerKilledBeforeAnythingWasStartedForgetsTheLease) {
  ASSERT_TRUE(write_file_atomically(home() + "/worker/leases/12.7", folder().path).ok());
  restart_worker();
  EXPECT_THAT(agent_->hello().leases, IsEmpty());
  EXPECT_FALSE(lease_remembered());
}

TEST_F(AgentTest, StopSurvivesTheWorker) {
  run_lease();
  agent_->handle(StopMessage{key, StopReason::cancelled});
  processes_.signals.clear();
  restart_worker();
  const pid_t pid = processes_.last().identity.pid;
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(pid, SIGTERM))) << "the signal may not have been sent before";
  clock_.advance_ms(limits::stop_grace_ms);
  agent_->tick();
  welcome();
  agent_->tick();
  EXPECT_EQ(ended().result, AttemptResult::cancelled);
}

TEST_F(AgentTest, UnacknowledgedEndSurvivesTheWorker) {
  run_lease();
  end_trainer({.exit_code = -1, .signal = SIGABRT});
  std::filesystem::remove(folder().log());
  restart_worker();
  welcome();
  agent_->tick();
  EXPECT_EQ(ended().reason, FailureReason::crashed);
  EXPECT_THAT(ended().error, HasSubstr("SIGABRT"));
}

TEST_F(AgentTest, TimeLimitCountsAcrossTheWorkersLives) {
  run_lease(60);
  clock_.advance_ms(50'000);
  restart_worker();
  clock_.advance_ms(10'001);
  agent_->tick();
  EXPECT_THAT(processes_.signals, ElementsAre(Pair(processes_.last().identity.pid, SIGTERM)));
}

// --- the home ------------------------------------------------------------------------------------------------------

TEST(WorkerHome, IdIsStable) {
  TempFolder home;
  const auto first = stable_worker_id(home.path());
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_FALSE(first->empty());
  EXPECT_EQ(*stable_worker_id(home.path()), *first);
}

TEST(WorkerHome, SecondWorkerIsRefusedByName) {
  TempFolder home;
  auto first = lock_worker(home.path());
  ASSERT_TRUE(first.ok()) << first.error().message;
  const auto second = lock_worker(home.path());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(second.error().message, HasSubstr("another worker (pid " + std::to_string(::getpid()) + ")"));
  EXPECT_THAT(second.error().message, HasSubstr(home.path()));
  first->reset();
  EXPECT_TRUE(lock_worker(home.path()).ok());
}

}  // namespace
}  // namespace assay
