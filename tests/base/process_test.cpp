#include "base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/unique_handle.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using ::testing::HasSubstr;

SpawnOptions shell(const std::string& script, const std::string& output = {}) {
  return {.program = "/bin/sh", .arguments = {"-c", script}, .output_path = output};
}

// Blocks until the child has ended, without taking its end from try_wait.
void await_end(pid_t pid) {
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) != 0) ASSERT_EQ(errno, EINTR);
}

ExitStatus run(const SpawnOptions& options) {
  const auto pid = spawn(options);
  EXPECT_TRUE(pid.ok()) << pid.error().message;
  if (!pid.ok()) return {};
  await_end(*pid);
  const auto status = try_wait(*pid);
  EXPECT_TRUE(status.has_value());
  return status.value_or(ExitStatus{});
}

std::string output_of(const SpawnOptions& options) {
  run(options);
  return read_file(options.output_path).value();
}

// A process that only ends when it is told to.
class Sleeper {
 public:
  explicit Sleeper(bool new_session = false) : Sleeper("/bin/sleep", new_session) {}
  explicit Sleeper(const std::string& program, bool new_session = false)
      : pid_(spawn({.program = program, .arguments = {"1000"}, .new_session = new_session}).value()) {}
  ~Sleeper() { end(); }
  pid_t pid() const { return pid_; }
  void kill_unreaped() {
    signal_group(pid_, SIGKILL);
    await_end(pid_);
  }
  void end() {
    if (pid_ <= 0) return;
    kill_unreaped();
    EXPECT_EQ(try_wait(pid_), (ExitStatus{.exit_code = -1, .signal = SIGKILL}));
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

TEST(Spawn, GivesTheExitCodeOnce) {
  const pid_t pid = spawn(shell("exit 7")).value();
  await_end(pid);
  EXPECT_EQ(try_wait(pid), (ExitStatus{.exit_code = 7, .signal = 0}));
  EXPECT_EQ(try_wait(pid), (ExitStatus{.exit_code = -1, .signal = 0})) << "its end was already taken";
}

TEST(Spawn, GivesTheSignal) {
  EXPECT_EQ(run(shell("kill -9 $$")), (ExitStatus{.exit_code = -1, .signal = SIGKILL}));
  EXPECT_EQ(run(shell("kill -TERM $$")), (ExitStatus{.exit_code = -1, .signal = SIGTERM}));
}

TEST(Spawn, ARunningOrStoppedChildHasNotEnded) {
  Sleeper child;
  EXPECT_EQ(try_wait(child.pid()), std::nullopt);
  ASSERT_TRUE(signal_group(child.pid(), SIGSTOP));
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED | WNOWAIT), 0);
  EXPECT_EQ(try_wait(child.pid()), std::nullopt);
}

TEST(Spawn, ProcessesThatAreNotChildrenHaveAnUnknownEnd) {
  EXPECT_EQ(try_wait(1), ExitStatus{});
  EXPECT_EQ(try_wait(0), ExitStatus{});
  EXPECT_EQ(try_wait(-1), ExitStatus{});
}

TEST(Spawn, AppendsBothOutputsToAFile) {
  TempFolder folder;
  const std::string log = folder.file("log");
  ASSERT_TRUE(write_file_atomically(log, "before\n").ok());
  EXPECT_EQ(output_of(shell("echo out; echo err >&2; echo again", log)), "before\nout\nerr\nagain\n");
}

TEST(Spawn, PassesArgumentsAsTheyAre) {
  TempFolder folder;
  SpawnOptions options = shell(R"(printf '[%s]' "$@")", folder.file("log"));
  options.arguments.insert(options.arguments.end(), {"sh", "a b", "", "*", "\"'$x"});
  EXPECT_EQ(output_of(options), "[a b][][*][\"'$x]");
}

TEST(Spawn, AddsToTheEnvironment) {
  TempFolder folder;
  ASSERT_EQ(::setenv("ASSAY_TEST_OURS", "ours", 1), 0);
  SpawnOptions options = shell("echo $ASSAY_TEST_OURS $ASSAY_TEST_ADDED", folder.file("log"));
  options.environment = {{"ASSAY_TEST_ADDED", "a=b c"}};
  EXPECT_EQ(output_of(options), "ours a=b c\n");
  EXPECT_EQ(::getenv("ASSAY_TEST_ADDED"), nullptr);
  options.environment["ASSAY_TEST_OURS"] = "theirs";
  options.output_path = folder.file("second");
  EXPECT_EQ(output_of(options), "theirs a=b c\n");
}

TEST(Spawn, StdinIsEmpty) {
  TempFolder folder;
  EXPECT_EQ(output_of(shell("cat; echo end", folder.file("log"))), "end\n");
}

TEST(Spawn, HasAProcessGroupOfItsOwnInOurSession) {
  Sleeper child;
  EXPECT_EQ(::getpgid(child.pid()), child.pid());
  EXPECT_EQ(::getsid(child.pid()), ::getsid(0));
}

TEST(Spawn, MayHaveASessionOfItsOwn) {
  Sleeper child(/*new_session=*/true);
  EXPECT_EQ(::getsid(child.pid()), child.pid());
  EXPECT_EQ(::getpgid(child.pid()), child.pid());
}

TEST(Spawn, DescriptorsDoNotLeak) {
  TempFolder folder;
  const UniqueFd open_one(::open("/dev/null", O_RDONLY));  // no O_CLOEXEC on purpose
  const UniqueFd high(::fcntl(open_one.get(), F_DUPFD, 200));
  ASSERT_TRUE(open_one && high);
  const std::string script = fmt::format(
      "for fd in 1 {} {}; do test -e /proc/self/fd/$fd && echo open || echo closed; done", open_one.get(), high.get());
  EXPECT_EQ(output_of(shell(script, folder.file("log"))), "open\nclosed\nclosed\n");
}

TEST(Spawn, SignalsOfTheParentDoNotReachTheChild) {
  TempFolder folder;
  sigset_t term, before;
  ::sigemptyset(&term);
  ::sigaddset(&term, SIGTERM);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &term, &before), 0);
  const auto old = ::signal(SIGPIPE, SIG_IGN);
  const std::string seen = output_of({.program = "/bin/grep",
                                      .arguments = {"-E", "SigBlk|SigIgn", "/proc/self/status"},
                                      .output_path = folder.file("log")});
  ::signal(SIGPIPE, old);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(seen, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST(Spawn, ErrorsNameTheProgramAndTheReason) {
  TempFolder folder;
  const auto missing = spawn({.program = "/no/such/program"});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_EQ(missing.error().message, "cannot start /no/such/program: No such file or directory");

  const std::string plain = folder.file("plain");
  ASSERT_TRUE(write_file_atomically(plain, "not a program").ok());
  const auto denied = spawn({.program = plain});
  ASSERT_FALSE(denied.ok());
  EXPECT_EQ(denied.error().code, ErrorCode::permission_denied);
  EXPECT_EQ(denied.error().message, "cannot start " + plain + ": Permission denied");

  const auto relative = spawn({.program = "sh"});
  ASSERT_FALSE(relative.ok());
  EXPECT_EQ(relative.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(relative.error().message, "cannot start \"sh\": expected an absolute path of a program");

  const auto no_output = spawn(shell("true", "/no/such/folder/log"));
  ASSERT_FALSE(no_output.ok());
  EXPECT_EQ(no_output.error().message,
            "cannot open /no/such/folder/log for the output of a program: No such file or directory");
}

TEST(Spawn, AFailedStartLeavesNoChild) {
  ASSERT_FALSE(spawn({.program = "/no/such/program"}).ok());
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(Spawn, ManyThreadsMayStartProcessesAtOnce) {
  std::array<int, 4> good{};
  std::vector<std::thread> threads;
  for (int& count : good)
    threads.emplace_back([&count] {
      for (int i = 0; i < 25; ++i) count += run(shell("exit 3")) == ExitStatus{.exit_code = 3};
    });
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(good, ::testing::Each(25));
}

TEST(SignalGroup, ReachesGrandchildren) {
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);  // so that the test can wait for the grandchild
  TempFolder folder;
  const std::string fifo = folder.file("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const pid_t pid = spawn(shell("sleep 1000 & echo ready > " + fifo + "; wait")).value();
  EXPECT_EQ(read_file(fifo).value(), "ready\n");
  EXPECT_TRUE(signal_group(pid, SIGKILL));
  int ended = 0;
  while (::waitpid(-pid, nullptr, 0) > 0) ++ended;
  EXPECT_EQ(ended, 2);
  EXPECT_FALSE(signal_group(pid, SIGKILL)) << "the group is gone";
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

TEST(SignalGroup, NeverSignalsEverybody) {
  EXPECT_FALSE(signal_group(0, SIGTERM));
  EXPECT_FALSE(signal_group(1, SIGTERM));
  EXPECT_FALSE(signal_group(-1, SIGTERM));
}

TEST(Identity, TellsAProcessFromALaterOneWithItsPid) {
  const ProcessIdentity self = identify_process(::getpid()).value();
  EXPECT_EQ(self.pid, ::getpid());
  EXPECT_EQ(self.boot_id, boot_id());
  EXPECT_TRUE(is_alive(self));
  ProcessIdentity other = self;
  ++other.start_ticks;
  EXPECT_FALSE(is_alive(other));
  other = self;
  other.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_FALSE(is_alive(other));
  EXPECT_FALSE(is_alive(ProcessIdentity{}));
}

TEST(Identity, AZombieIsNotAlive) {
  Sleeper child;
  const ProcessIdentity identity = identify_process(child.pid()).value();
  EXPECT_TRUE(is_alive(identity));
  child.kill_unreaped();
  EXPECT_FALSE(is_alive(identity));
  const pid_t pid = child.pid();
  child.end();
  const auto gone = identify_process(pid);
  ASSERT_FALSE(gone.ok());
  EXPECT_EQ(gone.error().code, ErrorCode::not_found);
  EXPECT_THAT(gone.error().message,
              HasSubstr(fmt::format("there is no process {}: cannot open /proc/{}/stat", pid, pid)));
}

TEST(Identity, ProgramNamesMayLookLikeFieldsOfProcStat) {
  TempFolder folder;
  const std::string program = folder.file(") Z 1 (2");
  std::filesystem::copy_file(std::filesystem::canonical("/bin/sleep"), program);
  const ProcessIdentity self = identify_process(::getpid()).value();
  Sleeper child(program);
  const ProcessIdentity identity = identify_process(child.pid()).value();
  EXPECT_GE(identity.start_ticks, self.start_ticks);
  EXPECT_LT(identity.start_ticks, self.start_ticks + 100 * 3600) << "the test did not run for an hour";
  EXPECT_TRUE(is_alive(identity));
}

TEST(Host, NamesItselfAndItsPrograms) {
  EXPECT_EQ(boot_id().size(), 36u);
  EXPECT_FALSE(host_name().empty());
  EXPECT_EQ(program_folder(), std::filesystem::canonical(bin_dir()));
}

TEST(RunInFork, GivesTheExitCodeAndCatchesWhatIsWrittenToStderr) {
  const auto end = run_in_fork([](int terminal) {
    EXPECT_GE(terminal, 0);
    ::dprintf(STDERR_FILENO, "noise\nlast line\n");
    return 3;
  });
  ASSERT_TRUE(end.ok()) << end.error().message;
  EXPECT_EQ(end->status, (ExitStatus{.exit_code = 3}));
  EXPECT_EQ(end->last_words, "last line");
}

TEST(RunInFork, OutlivesWhateverTheWorkDoes) {
  EXPECT_EQ(run_in_fork([](int) -> int {
              ::raise(SIGSEGV);
              return 0;
            })->status.signal,
            SIGSEGV);
  EXPECT_EQ(run_in_fork([](int) -> int {
              ::raise(SIGKILL);
              return 0;
            })->status.signal,
            SIGKILL);
  EXPECT_EQ(run_in_fork([](int) -> int { ::_exit(255); })->status.exit_code, 255);
  const auto aborted = run_in_fork([](int) -> int {
    ::dprintf(STDERR_FILENO, "%s\nCHECK failed", std::string(10'000, 'x').c_str());
    ::signal(SIGABRT, SIG_DFL);
    std::abort();
  });
  EXPECT_EQ(aborted->status.signal, SIGABRT);
  EXPECT_EQ(aborted->last_words, "CHECK failed");
}

}  // namespace
}  // namespace assay
