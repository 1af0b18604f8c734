// SystemProcesses against real processes. Nothing sleeps: the children block on a pipe or stop themselves, and ends are
// awaited through the descriptor that SystemProcesses::watch gives.
#include "worker/process_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "tests/support/temp_folder.h"

namespace assay {
namespace {

class ProcessControlTest : public testing::Test {
 protected:
  ProcessControlTest() {
    // A reader of this blocks until the test closes its end.
    EXPECT_EQ(::mkfifo(fifo_.c_str(), 0600), 0);
  }
  ProcessIdentity shell(const std::string& script) {
    auto started = processes_.spawn({.program = "/bin/sh", .arguments = {"-c", script, fifo_}, .new_session = true});
    EXPECT_TRUE(started.ok()) << started.error().message;
    return started.ok() ? *started : ProcessIdentity{};
  }
  ExitStatus await(pid_t pid) {
    const UniqueFd fd = processes_.watch(pid);
    EXPECT_TRUE(fd) << "pidfd_open";
    pollfd one{.fd = fd.get(), .events = POLLIN};
    EXPECT_EQ(::poll(&one, 1, 20'000), 1) << "the child did not end";
    const auto exit = processes_.peek_exit(pid);
    EXPECT_TRUE(exit);
    return exit.value_or(ExitStatus{});
  }
  TempFolder temp_;
  std::string fifo_ = temp_.path() + "/fifo";
  SystemProcesses processes_;
};

TEST_F(ProcessControlTest, ExitCodeIsSeenWithoutReaping) {
  const ProcessIdentity child = shell("exit 70");
  EXPECT_EQ(await(child.pid).exit_code, 70);
  EXPECT_FALSE(processes_.is_alive(child));
  EXPECT_EQ(::kill(child.pid, 0), 0) << "still a zombie that keeps its pid";
  processes_.reap(child.pid);
  EXPECT_NE(::kill(child.pid, 0), 0);
}

TEST_F(ProcessControlTest, RunningThenKilledByASignalToItsGroup) {
  const ProcessIdentity child = shell("read line < \"$0\"");
  EXPECT_FALSE(processes_.peek_exit(child.pid));
  EXPECT_TRUE(processes_.is_alive(child));
  EXPECT_TRUE(processes_.group_runs(child));
  processes_.signal_group(child, SIGKILL);
  EXPECT_EQ(await(child.pid).signal, SIGKILL);
  EXPECT_FALSE(processes_.group_runs(child)) << "a zombie does not count";
  processes_.reap(child.pid);
}

TEST_F(ProcessControlTest, GroupOutlivesItsLeader) {
  const ProcessIdentity child = shell("sh -c 'read line < \"$0\"' \"$0\" & exit 0");
  EXPECT_EQ(await(child.pid).exit_code, 0);
  EXPECT_TRUE(processes_.group_runs(child));
  { const std::ofstream release(fifo_); }  // opening and closing it ends the reader
  while (processes_.group_runs(child)) ::sched_yield();
  processes_.reap(child.pid);
}

TEST_F(ProcessControlTest, AnotherProcessOfTheSameNumberIsNotOurs) {
  ProcessIdentity self = *identify_process(::getpid());
  self.start_ticks += 1;
  EXPECT_FALSE(processes_.is_alive(self));
  EXPECT_FALSE(processes_.group_runs(self));
  self.start_ticks -= 1;
  self.boot_id = "another boot";
  EXPECT_FALSE(processes_.group_runs(self));
}

TEST_F(ProcessControlTest, FindsATrainerByProgramAndFolder) {
  const ProcessIdentity child = shell("read line < \"$0\"");
  EXPECT_EQ(processes_.find("/bin/sh", fifo_), child);
  EXPECT_FALSE(processes_.find("/bin/other", fifo_));
  EXPECT_FALSE(processes_.find("/bin/sh", fifo_ + "x"));
  processes_.signal_group(child, SIGKILL);
  await(child.pid);
  EXPECT_FALSE(processes_.find("/bin/sh", fifo_)) << "a zombie has no arguments and does not count";
  processes_.reap(child.pid);
}

TEST_F(ProcessControlTest, AProgramThatIsNotThereIsNamed) {
  const auto started = processes_.spawn({.program = "/nowhere/assay-trainer"});
  ASSERT_FALSE(started.ok());
  EXPECT_THAT(started.error().message, testing::HasSubstr("/nowhere/assay-trainer"));
}

}  // namespace
}  // namespace assay
