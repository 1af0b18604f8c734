#include "tests/support/kill_points.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>
#include <stdexcept>

namespace assay {
namespace {

constexpr int untraceable_exit = 77;
enum class Outcome { killed, not_torn, finished, untraceable };

bool changes_files(uint64_t nr) {
  for (const long one : {
#ifdef SYS_rename
           SYS_rename, SYS_mkdir, SYS_rmdir, SYS_unlink,
#endif
           SYS_write, SYS_pwrite64, SYS_writev, SYS_renameat, SYS_renameat2, SYS_mkdirat, SYS_unlinkat, SYS_ftruncate,
           SYS_fsync, SYS_fdatasync})
    if (nr == static_cast<uint64_t>(one)) return true;
  return false;
}

bool wait_stopped(pid_t child, int* status) {
  while (::waitpid(child, status, 0) < 0)
    if (errno != EINTR) throw std::runtime_error("waitpid failed");
  return WIFSTOPPED(*status);
}

void kill_and_reap(pid_t child) {
  ::kill(child, SIGKILL);
  int status = 0;
  while (wait_stopped(child, &status)) ::ptrace(PTRACE_CONT, child, nullptr, nullptr);
}

// Halves the byte count of the write(2) that `child` is about to do. False where we cannot, or nothing would be torn.
bool halve_write(pid_t child, uint64_t nr) {
#ifdef __x86_64__
  user_regs_struct registers{};
  if (nr != SYS_write || ::ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0 || registers.rdx < 2) return false;
  registers.rdx /= 2;
  return ::ptrace(PTRACE_SETREGS, child, nullptr, &registers) == 0;
#else
  (void)child, (void)nr;
  return false;
#endif
}

[[noreturn]] void run_child(const std::function<bool()>& work) {
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(untraceable_exit);
  ::raise(SIGSTOP);
  try {
    ::_exit(work() ? 0 : 1);
  } catch (...) {
    ::_exit(1);
  }
}

Outcome finished(int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Outcome::finished;
  if (WIFEXITED(status) && WEXITSTATUS(status) == untraceable_exit) return Outcome::untraceable;
  throw std::runtime_error("the work failed by itself");
}

Outcome run_until(const std::function<bool()>& work, const KillPoint& point) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) run_child(work);
  int status = 0;
  if (!wait_stopped(child, &status)) return finished(status);
  if (::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0)
    throw std::runtime_error("ptrace cannot set its options");
  int calls = 0;
  bool torn = false;  // the halved write is under way
  for (int signal = 0;;) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, signal);
    if (!wait_stopped(child, &status)) return finished(status);
    signal = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
    if (signal != 0) continue;  // a signal of its own: pass it on
    __ptrace_syscall_info info{};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) < 0)
      throw std::runtime_error("ptrace cannot look");
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && torn) break;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !changes_files(info.entry.nr) || calls++ != point.call) continue;
    if (!point.torn) break;
    torn = halve_write(child, info.entry.nr);
    if (!torn) break;
  }
  kill_and_reap(child);
  return point.torn && !torn ? Outcome::not_torn : Outcome::killed;
}

}  // namespace

std::string KillPoint::describe() const {
  return "killed " + std::string(torn ? "halfway through" : "before") + " file-changing call " + std::to_string(call);
}

int kill_at_every_point(const KillPoints& points) {
  int kills = 0;
  for (KillPoint point;; ++point.call) {
    for (const bool torn : {false, true}) {
      point.torn = torn;
      points.set_up();
      const Outcome outcome = run_until(points.work, point);
      if (outcome == Outcome::untraceable) return -1;
      if (outcome == Outcome::finished) return kills;
      if (outcome == Outcome::not_torn) continue;
      ++kills;
      points.verify(point);
    }
  }
}

}  // namespace assay
