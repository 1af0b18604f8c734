// The whole way of a run through the real programs, and what a SIGKILL at each of them does to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <numeric>
#include <random>
#include <thread>

#include "base/file.h"
#include "tests/e2e/system.h"
#include "tests/support/paths.h"
#include "worker/attempt/attempt_files.h"
#include "worker/attempt/journal.h"

namespace assay {
namespace {

using testing::ElementsAreArray;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::vector<int64_t> all_from(int64_t first, int64_t end) {
  std::vector<int64_t> steps(static_cast<size_t>(end - first));
  std::iota(steps.begin(), steps.end(), first);
  return steps;
}

class EndToEnd : public testing::Test {
 protected:
  void start() { ASSERT_NO_FATAL_FAILURE(system_.start_daemon()); }
  void enqueue(const std::string& spec) { ASSERT_NO_FATAL_FAILURE(system_.enqueue(spec)); }
  size_t journal_bytes(const v1::Run& run) const {
    std::error_code missing;
    const auto size = std::filesystem::file_size(AttemptFolder{system_.attempt_folder(run)}.journal(), missing);
    return missing ? 0 : size;
  }
  // Completed by its last attempt; the others were lost; every attempt's steps are consecutive, and none ran while
  // another did.
  void expect_whole(const v1::Run& run, int64_t length) {
    EXPECT_EQ(run.state(), "completed") << run.DebugString();
    int64_t last_end = 0;
    for (const v1::Attempt& attempt : run.attempts()) {
      const bool last = attempt.n() == run.attempts_size();
      EXPECT_EQ(attempt.outcome().result(), last ? "completed" : "failed") << run.DebugString();
      EXPECT_EQ(attempt.outcome().reason(), last ? "none" : "worker_lost") << run.DebugString();
      const auto steps = system_.metrics(attempt.n(), run.name());
      const int64_t first = std::max<int64_t>(attempt.resumed_from_step(), 0);
      const int64_t end = last ? length : first + static_cast<int64_t>(steps.size());
      std::vector<int64_t> numbers;
      for (const StepMetrics& step : steps) numbers.push_back(step.step);
      EXPECT_THAT(numbers, ElementsAreArray(all_from(first, end))) << run.DebugString();
      if (steps.empty()) continue;
      EXPECT_LE(last_end, steps.front().unix_ms) << "two attempts at once: " << run.DebugString();
      last_end = steps.back().unix_ms;
    }
  }
  System system_;
};

// Long enough to be met in the middle, short enough for a test.
constexpr int64_t long_run = 400;

TEST_F(EndToEnd, EnqueuedRunCompletesWithEveryStep) {
  start();
  enqueue(system_.spec(20));
  const v1::Run run = system_.wait_state("completed");
  EXPECT_EQ(run.attempts_size(), 1);
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, 20)));
  EXPECT_EQ(run.latest().outcome().result(), "completed");
  EXPECT_GT(run.latest().peak_mem_mib(), 0);
  EXPECT_THAT(*read_file(run.latest().log_path()), HasSubstr("step 19/20 | loss"));
}

TEST_F(EndToEnd, RunGoesOnWithoutTheDaemonAndLosesNoStep) {
  start();
  enqueue(system_.spec(long_run));
  const v1::Run before = system_.wait_step(3);
  const ProcessIdentity trainer = system_.trainer(before);
  system_.kill_daemon();
  const size_t bytes = journal_bytes(before);
  system_.wait("steps without a daemon", [&] { return journal_bytes(before) > bytes + 1000; });
  EXPECT_TRUE(is_alive(trainer));
  start();
  const v1::Run run = system_.wait_state("completed");
  EXPECT_EQ(run.attempts_size(), 1);
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, long_run)));
}

TEST_F(EndToEnd, RunThatEndsWhileTheDaemonIsAwayIsReportedAfterwards) {
  start();
  enqueue(system_.spec(600));  // a second at least, so that it ends after the daemon
  const v1::Run before = system_.wait_step(0);
  system_.kill_daemon();
  const AttemptFolder folder{system_.attempt_folder(before)};
  system_.wait("the trainer's result", [&] { return std::filesystem::exists(folder.result()); });
  start();
  const v1::Run run = system_.wait_state("completed");
  EXPECT_EQ(run.attempts_size(), 1);
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, 600)));
}

TEST_F(EndToEnd, CrashIsCapturedAndARetryResumesFromTheCheckpoint) {
  start();
  enqueue(system_.spec(12, "checkpoint_every = 4", "fault = {kind = \"crash\", step = 6, attempts = 1}"));
  const v1::Run failed = system_.wait_state("failed");
  const v1::AttemptOutcome& outcome = failed.latest().outcome();
  EXPECT_EQ(outcome.reason(), "crashed");
  EXPECT_EQ(outcome.signal(), SIGSEGV);
  EXPECT_EQ(outcome.step(), 6);
  EXPECT_THAT(outcome.error(), HasSubstr("SIGSEGV"));
  EXPECT_THAT(outcome.log_tail(), HasSubstr("injected fault at step 6: crash"));
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, 6)));

  ASSERT_NO_FATAL_FAILURE(system_.retry());
  system_.wait("the second attempt", [&] { return system_.run().state() == "completed"; });
  const v1::Run run = system_.run();
  ASSERT_EQ(run.attempts_size(), 2);
  EXPECT_EQ(run.attempts(0).outcome().reason(), "crashed") << "an attempt is never overwritten";
  EXPECT_EQ(run.attempts(1).outcome().result(), "completed");
  EXPECT_EQ(run.attempts(1).resumed_from_step(), 4);
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, 6)));
  EXPECT_THAT(system_.steps(2), ElementsAreArray(all_from(4, 12)));
}

TEST_F(EndToEnd, CancelEndsTheWholeProcessGroup) {
  start();
  enqueue(system_.spec(100'000));
  const ProcessIdentity trainer = system_.trainer(system_.wait_step(1));
  ASSERT_TRUE(is_alive(trainer));
  ASSERT_NO_FATAL_FAILURE(system_.cancel());
  const v1::Run run = system_.wait_state("cancelled");
  EXPECT_FALSE(is_alive(trainer));
  EXPECT_FALSE(signal_group(trainer.pid, 0)) << "the group has members";
  EXPECT_EQ(run.latest().outcome().result(), "cancelled");
  EXPECT_EQ(run.latest().outcome().exit_code(), 9) << "it ended by itself, in order";
}

TEST_F(EndToEnd, RunGoesOnWithoutTheWorkerAndLosesNoStep) {
  start();
  enqueue(system_.spec(long_run));
  const ProcessIdentity trainer = system_.trainer(system_.wait_step(3));
  const pid_t worker = system_.worker_pid();
  ASSERT_GT(worker, 0);
  ASSERT_EQ(::kill(worker, SIGKILL), 0);
  system_.wait("a new worker", [&] { return system_.worker_pid() > 0 && system_.worker_pid() != worker; });
  EXPECT_TRUE(is_alive(trainer)) << "the trainer outlives its worker";
  const v1::Run run = system_.wait_state("completed");
  EXPECT_EQ(run.attempts_size(), 1) << run.DebugString();
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, long_run)));
}

TEST_F(EndToEnd, KilledTrainerIsACrashThatMentionsMemory) {
  start();
  enqueue(system_.spec(100'000));
  const ProcessIdentity trainer = system_.trainer(system_.wait_step(1));
  ASSERT_TRUE(signal_group(trainer.pid, SIGKILL));
  const v1::Run run = system_.wait_state("failed");
  EXPECT_EQ(run.latest().outcome().reason(), "crashed");
  EXPECT_EQ(run.latest().outcome().signal(), SIGKILL);
  EXPECT_THAT(run.latest().outcome().error(), HasSubstr("possibly out of memory"));
  const std::vector<int64_t> steps = system_.steps(1);
  EXPECT_THAT(steps, ElementsAreArray(all_from(0, static_cast<int64_t>(steps.size()))));
  EXPECT_EQ(run.latest().outcome().step(), static_cast<int64_t>(steps.size()));
}

TEST_F(EndToEnd, StoppedSystemPutsItsRunBackAndResumesIt) {
  start();
  enqueue(system_.spec(long_run));
  system_.wait_step(3);
  ASSERT_NO_FATAL_FAILURE(system_.shut_down());
  start();
  const v1::Run run = system_.wait_state("completed");
  ASSERT_EQ(run.attempts_size(), 2);
  EXPECT_EQ(run.attempts(0).outcome().result(), "stopped") << "nobody's failure";
  std::vector<int64_t> both = system_.steps(1);
  for (const int64_t step : system_.steps(2)) both.push_back(step);
  EXPECT_THAT(both, ElementsAreArray(all_from(0, long_run))) << "the checkpoint made at the stop is where it went on";
}

// The databases are gone and runs/ is kept: the same spec under the same tag is another run.
TEST_F(EndToEnd, ANewQueueResumesNothingThatAForgottenOneLeft) {
  const auto text_of = [](const std::string& path) {
    const auto text = read_file(path);
    EXPECT_TRUE(text.ok()) << text.error().message;
    return text.ok() ? *text : "";
  };
  start();
  enqueue(system_.spec(20, "checkpoint_every = 5"));
  const AttemptFolder forgotten{system_.attempt_folder(system_.wait_state("completed"))};
  const std::string result = text_of(forgotten.result());
  const std::string checkpoints = std::filesystem::path(forgotten.path).parent_path().string() + "/checkpoints";
  const std::string manifest = text_of(checkpoints + "/step_000020/manifest.json");
  EXPECT_NE(manifest, "");
  ASSERT_NO_FATAL_FAILURE(system_.shut_down());
  for (const std::string database : {"/queue.db", "/metrics.db"})
    for (const char* file : {"", "-wal", "-shm"}) std::filesystem::remove(system_.home() + database + file);

  start();
  enqueue(system_.spec(20, "checkpoint_every = 5"));
  const v1::Run run = system_.wait_state("completed");
  ASSERT_EQ(run.attempts_size(), 1);
  EXPECT_EQ(run.latest().resumed_from_step(), -1);
  EXPECT_THAT(system_.steps(1), ElementsAreArray(all_from(0, 20)));
  const AttemptFolder fresh{system_.attempt_folder(run)};
  EXPECT_EQ(fresh.path, forgotten.path + ".2");
  EXPECT_THAT(text_of(fresh.log()), HasSubstr("skipped checkpoint " + checkpoints + "/step_000020: it is no "));
  EXPECT_EQ(text_of(forgotten.result()), result);
  EXPECT_EQ(text_of(checkpoints + "/step_000020/manifest.json"), manifest);
  EXPECT_TRUE(std::filesystem::exists(checkpoints + "/step_000020.2/manifest.json"));
}

// Nothing is left to write to, and yet what the run ended as is on the disk.
TEST(TrainerProgram, AnOutputThatCannotBeWrittenEndsNoRun) {
  TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder.file("bad.toml"), "model.depth = 0\n").ok());
  const auto pid = spawn({.program = bin_dir() + "/assay-trainer",
                          .arguments = {"--config", folder.file("bad.toml"), "--folder", folder.file("attempt")},
                          .output_path = "/dev/full"});
  ASSERT_TRUE(pid.ok()) << pid.error().message;
  std::optional<ExitStatus> status;
  while (!(status = try_wait(*pid))) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(status->exit_code, 2) << "signal " << status->signal;
  const auto result = read_result({folder.file("attempt")});
  ASSERT_TRUE(result.ok() && *result);
  EXPECT_EQ((*result)->reason, FailureReason::config_invalid);
}

TEST_F(EndToEnd, SecondDaemonOfTheSameHomeIsRefusedByName) {
  start();
  const System::Ended second = system_.run_second_daemon();
  EXPECT_EQ(second.status.exit_code, 1);
  EXPECT_THAT(second.output, HasSubstr(system_.home()));
  EXPECT_THAT(second.output, HasSubstr(std::to_string(system_.daemon_pid())));
  enqueue(system_.spec(2));
  EXPECT_EQ(system_.wait_state("completed").state(), "completed") << "the first one is not harmed";
}

// The same runs once more, under ids and in folders that were in use before the backup was put back.
TEST_F(EndToEnd, AQueueRestoredFromABackupKeepsItsRunsApart) {
  const std::string database = system_.home() + "/queue.db", backup = database + ".backup";
  start();
  ASSERT_NO_FATAL_FAILURE(system_.shut_down());
  std::filesystem::copy_file(database, backup);
  start();
  enqueue(system_.spec_of_many(3, 12));
  for (const char* name : {"r0", "r1", "r2"}) system_.wait_state("completed", name);
  ASSERT_NO_FATAL_FAILURE(system_.shut_down());
  std::filesystem::copy_file(backup, database, std::filesystem::copy_options::overwrite_existing);
  start();
  enqueue(system_.spec_of_many(3, 12));
  for (const char* name : {"r0", "r1", "r2"}) {
    SCOPED_TRACE(name);
    const v1::Run run = system_.wait_state("completed", name);
    ASSERT_EQ(run.attempts_size(), 1);
    const AttemptFolder folder{system_.attempt_folder(run)};
    EXPECT_THAT(folder.path, EndsWith("/attempt1.2"));
    EXPECT_EQ((*read_lease(folder))->attempt_id, run.latest().id());
    std::vector<std::pair<int64_t, double>> journal, stored;
    const auto records = JournalReader(folder.journal()).read(100);
    ASSERT_TRUE(records.ok()) << records.error().message;
    for (const JournalRecord& record : *records) journal.emplace_back(record.metrics.unix_ms, record.metrics.loss);
    for (const StepMetrics& step : system_.metrics(1, name)) stored.emplace_back(step.unix_ms, step.loss);
    EXPECT_EQ(journal.size(), 12u);
    EXPECT_EQ(stored, journal);
  }
}

// tests/fixtures: a queue and its metrics as the first version wrote them.
TEST_F(EndToEnd, AHomeOfTheFirstVersionIsServed) {
  const std::string fixture = source_dir() + "/tests/fixtures/home_1/";
  std::filesystem::create_directories(system_.home());
  for (const char* name : {"queue.db", "metrics.db"})
    std::filesystem::copy_file(fixture + name, system_.home() + "/" + name);
  start();
  EXPECT_EQ(system_.run("a").state(), "completed");
  EXPECT_EQ(system_.run("b").latest().outcome().reason(), "crashed");
  EXPECT_THAT(system_.steps(1, "a"), ElementsAreArray(all_from(0, 12)));
  EXPECT_THAT(system_.steps(1, "b"), ElementsAreArray(all_from(0, 9)));
  EXPECT_EQ(system_.metrics(1, "a").back().tokens, not_recorded<int64_t>);
  enqueue(system_.spec(4));
  system_.wait_state("completed", "e2e/t/a");
  EXPECT_EQ(system_.metrics(1, "e2e/t/a").back().tokens, 4 * 64);
}

TEST_F(EndToEnd, AMovedHomeKeepsItsLogs) {
  start();
  enqueue(system_.spec(5));
  const std::string log = system_.wait_state("completed").latest().log_path();
  ASSERT_NO_FATAL_FAILURE(system_.shut_down());
  ASSERT_NO_FATAL_FAILURE(system_.move_home());
  start();
  const v1::Run run = system_.run();
  EXPECT_NE(run.latest().log_path(), log);
  EXPECT_THAT(run.latest().log_path(), StartsWith(system_.home() + "/runs/"));
  EXPECT_THAT(system_.log(), HasSubstr("step 4/5 | loss"));
}

TEST_F(EndToEnd, NothingHalfWrittenIsLeft) {
  start();
  enqueue(system_.spec(8, "checkpoint_every = 2"));
  const v1::Run run = system_.wait_state("completed");
  const AttemptFolder folder{system_.attempt_folder(run)};
  for (const std::string& file :
       {folder.config(), folder.log(), folder.journal(), folder.progress(), folder.result(), folder.lease()})
    EXPECT_TRUE(std::filesystem::exists(file)) << file;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(system_.home()))
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr("tmp"))) << "a temporary file was left";
  system_.wait("the worker to forget the lease",
               [&] { return std::filesystem::is_empty(system_.home() + "/worker/leases"); });
}

// Daemon and worker are killed at random moments while short runs go through the queue, so over time at every
// transition. Neither is ever a run's fault: every run completes, and whatever attempt did not is a lost one.
TEST_F(EndToEnd, KillsAtRandomMomentsLoseNoRunAndDoubleNoStep) {
  constexpr int count = 12, kills = 24;
  constexpr int64_t length = 30;
  // The choices; the moments also depend on the machine. Other choices: --gtest_random_seed.
  std::mt19937 random(20260224 + static_cast<unsigned>(GTEST_FLAG_GET(random_seed)));
  std::uniform_int_distribution<int> pause_ms(0, 400);
  start();
  enqueue(system_.spec_of_many(count, length));
  for (int i = 0; i < kills; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms(random)));
    if (random() % 2 == 0) {
      system_.kill_daemon();
      start();
    } else if (const pid_t worker = system_.worker_pid(); worker > 0) {
      ::kill(worker, SIGKILL);
    }
  }
  system_.wait("every run to end", [&] {
    for (const v1::Run& run : system_.runs())
      if (run.state() != "completed" && run.state() != "failed") return false;
    return true;
  });
  for (int i = 0; i < count; ++i) expect_whole(system_.run("r" + std::to_string(i)), length);
}

}  // namespace
}  // namespace assay
