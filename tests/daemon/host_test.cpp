// What the daemon does to its host: home folder, socket, log files, the worker's process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/limits.h"
#include "daemon/home_lock.h"
#include "daemon/listener.h"
#include "daemon/log_tail.h"
#include "daemon/worker_supervisor.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;

TEST(HomeLock, CreatesThePrivateFolderAndLocksIt) {
  TempFolder folder;
  const std::string home = folder.file("a/b");
  auto lock = lock_home(home);
  ASSERT_TRUE(lock.ok()) << lock.error().message;
  struct stat info {};
  ASSERT_EQ(::stat(home.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  EXPECT_THAT(lock_home(home).error().message,
              HasSubstr("another daemon (pid " + std::to_string(::getpid()) + ") serves " + home));
  lock->reset();
  EXPECT_TRUE(lock_home(home).ok());
}

TEST(HomeLock, SaysWhatIsWrongWithTheFolder) {
  TempFolder folder;
  std::ofstream(folder.file("file")) << "x";
  EXPECT_THAT(lock_home(folder.file("file")).error().message, HasSubstr("is not a folder"));
  EXPECT_THAT(lock_home(folder.file("file/home")).error().message, HasSubstr("is not a folder"));
  ASSERT_EQ(::mkdir(folder.file("open").c_str(), 0700), 0);
  ASSERT_EQ(::chmod(folder.file("open").c_str(), 0777), 0);
  EXPECT_EQ(lock_home(folder.file("open")).error().message,
            folder.file("open") + " can be written by other users; run: chmod 700 " + folder.file("open"));
}

TEST(Listener, AdmitsTheOwnerAndRoot) {
  EXPECT_TRUE(may_connect(1000, 1000));
  EXPECT_TRUE(may_connect(0, 1000));
  EXPECT_FALSE(may_connect(1001, 1000));
  EXPECT_FALSE(may_connect(1000, 0));
}

TEST(Listener, ReplacesADeadSocketButNoOtherFile) {
  TempFolder folder;
  const std::string path = folder.file("s");
  const auto ignore = [](int fd) { ::close(fd); };
  {
    auto first = Listener::open(path, ignore);
    ASSERT_TRUE(first.ok()) << first.error().message;
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    std::filesystem::rename(path, folder.file("dead"));  // what a killed daemon leaves
  }
  EXPECT_TRUE(Listener::open(folder.file("dead"), ignore).ok());
  std::ofstream(folder.file("file")) << "precious";
  EXPECT_THAT(Listener::open(folder.file("file"), ignore).error().message, HasSubstr("is no socket"));
  EXPECT_THAT(Listener::open(folder.file(std::string(200, 'x')), ignore).error().message, HasSubstr("too long"));
}

TEST(LogTail, ReadsByByteOffset) {
  TempFolder folder;
  const std::string path = folder.file("log");
  std::ofstream(path) << "0123456789";
  const auto read = [&](int64_t offset, int64_t bytes) { return *read_log(folder.path(), path, offset, bytes); };
  EXPECT_EQ(read(0, 4).data, "0123");
  EXPECT_EQ(read(4, 0).data, "456789");
  EXPECT_EQ(read(-3, 0).data, "789");
  EXPECT_EQ(read(-99, 2).data, "01");
  EXPECT_EQ(read(4, 3).next_offset, 7);
  EXPECT_EQ(read(99, 5).data, "");
  EXPECT_EQ(read(99, 5).next_offset, 10);
  EXPECT_EQ(read_log(folder.path(), folder.file("later"), 0, 0)->size, 0);
}

TEST(LogTail, ReadsAtMostAChunk) {
  TempFolder folder;
  const std::string path = folder.file("log");
  std::ofstream(path) << std::string(limits::log_chunk_bytes + 1, 'x');
  EXPECT_EQ(read_log(folder.path(), path, 0, 1'000'000'000)->data.size(), limits::log_chunk_bytes);
}

TEST(LogTail, NeverLeavesTheHome) {
  TempFolder folder, elsewhere;
  std::ofstream(elsewhere.file("secret")) << "secret";
  std::filesystem::create_symlink(elsewhere.path(), folder.file("link"));
  std::filesystem::create_symlink(elsewhere.file("secret"), folder.file("log"));
  for (const std::string& path :
       {elsewhere.file("secret"), folder.file("link/secret"), folder.file("log"),
        folder.path() + "/../" + std::filesystem::path(elsewhere.path()).filename().string() + "/secret",
        folder.path()})
    EXPECT_EQ(read_log(folder.path(), path, 0, 0).error().code, ErrorCode::permission_denied) << path;
}

TEST(WorkerSupervisor, RestartsWithGrowingPauses) {
  int64_t pause = 0;
  std::vector<int64_t> pauses;
  for (int i = 0; i < 10; ++i) pauses.push_back(pause = restart_pause_ms(10, pause));
  EXPECT_THAT(pauses, testing::ElementsAre(250, 500, 1'000, 2'000, 4'000, 8'000, 16'000, 30'000, 30'000, 30'000));
  EXPECT_EQ(restart_pause_ms(3'600'000, 30'000), 250);
}

// Waits for a condition that a process must bring about; the only clock here is the kernel's.
template <class F>
bool eventually(F condition) {
  for (int i = 0; i < 2'000; ++i) {
    if (condition()) return true;
    ::usleep(5'000);
  }
  return false;
}

TEST(WorkerSupervisor, TheWorkerOutlivesItAndIsFoundAgain) {
  TempFolder folder;
  const SystemClock clock;
  const WorkerCommand command{"/bin/sleep", {"1000"}, folder.file("worker.log")};
  auto first = WorkerSupervisor::start(folder.path(), command, clock);
  ASSERT_TRUE(first.ok()) << first.error().message;
  ASSERT_TRUE(eventually([&] { return (*first)->worker().has_value(); }));
  const ProcessIdentity worker = *(*first)->worker();
  first->reset();
  EXPECT_TRUE(is_alive(worker));

  auto second = WorkerSupervisor::start(folder.path(), command, clock);
  ASSERT_TRUE(eventually([&] { return (*second)->worker().has_value(); }));
  EXPECT_EQ((*second)->worker()->pid, worker.pid);
  // Killed: another one is started.
  ::kill(worker.pid, SIGKILL);
  ASSERT_TRUE(eventually([&] { return (*second)->worker() && (*second)->worker()->pid != worker.pid; }));
  const ProcessIdentity next = *(*second)->worker();
  (*second)->expect_end();
  EXPECT_TRUE((*second)->wait_for_end(1));  // SIGTERM is enough for sleep
  EXPECT_FALSE(is_alive(next));
}

TEST(WorkerSupervisor, AWorkerOfAnotherVersionIsReplacedAndNoOtherProcess) {
  TempFolder folder;
  const SystemClock clock;
  const WorkerCommand command{"/bin/sleep", {"1000"}, folder.file("worker.log")};
  auto supervisor = WorkerSupervisor::start(folder.path(), command, clock);
  ASSERT_TRUE(supervisor.ok()) << supervisor.error().message;
  ASSERT_TRUE(eventually([&] { return (*supervisor)->worker().has_value(); }));
  const ProcessIdentity worker = *(*supervisor)->worker();
  // What a hello claims is not enough: another process may have had the pid, or this test's own may be named.
  (*supervisor)->replace({worker.pid, worker.start_ticks - 1, worker.boot_id});
  (*supervisor)->replace(*identify_process(::getpid()));
  EXPECT_TRUE(is_alive(worker));

  (*supervisor)->replace(worker);
  ASSERT_TRUE(eventually([&] { return (*supervisor)->worker() && (*supervisor)->worker()->pid != worker.pid; }));
  EXPECT_FALSE(is_alive(worker));
  const ProcessIdentity next = *(*supervisor)->worker();
  (*supervisor)->expect_end();
  (*supervisor)->replace(next);  // it is told to end, and SIGKILL would leave its trainers behind
  EXPECT_TRUE(is_alive(next));
  EXPECT_TRUE((*supervisor)->wait_for_end(1));
}

TEST(WorkerSupervisor, AMissingProgramIsSaid) {
  TempFolder folder;
  const SystemClock clock;
  EXPECT_THAT(WorkerSupervisor::start(folder.path(), {"/nowhere/assay-worker", {}, ""}, clock).error().message,
              HasSubstr("/nowhere/assay-worker is not there"));
}

}  // namespace
}  // namespace assay
