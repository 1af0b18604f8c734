#include "worker/process_control.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

namespace assay {
namespace {

// Calls visit(pid) for every process until it returns true; whether it did.
template <class Visit>
bool any_process(Visit visit) {
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    pid_t pid = 0;
    const auto [rest, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad == std::errc() && rest == name.data() + name.size() && visit(pid)) return true;
  }
  return false;
}

struct ProcessState {
  char state = 'X';
  pid_t group = 0;
};

// Source: proc(5), stat: "pid (name) state ppid pgrp ..."; the name may hold anything, so read after the last ')'.
std::optional<ProcessState> state_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const size_t close = line.rfind(')');
  if (close == std::string::npos) return std::nullopt;
  std::istringstream rest(line.substr(close + 1));
  ProcessState result;
  pid_t parent = 0;
  if (!(rest >> result.state >> parent >> result.group)) return std::nullopt;
  return result;
}

bool runs(const ProcessState& process) {
  return process.state != 'Z' && process.state != 'X';
}

bool was_started_as(pid_t pid, const std::string& program, const std::string& argument) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::string one;
  if (!std::getline(file, one, '\0') || one != program) return false;
  while (std::getline(file, one, '\0'))
    if (one == argument) return true;
  return false;
}

bool is_ours(pid_t pid) {
  struct stat info {};
  return ::stat(("/proc/" + std::to_string(pid)).c_str(), &info) == 0 && info.st_uid == ::geteuid();
}

}  // namespace

Result<ProcessIdentity> SystemProcesses::spawn(const SpawnOptions& options) {
  ASSAY_ASSIGN(const pid_t pid, assay::spawn(options));
  return identify_process(pid);  // cannot miss: an ended child stays a zombie until we reap it
}

std::optional<ExitStatus> SystemProcesses::peek_exit(pid_t child) {
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0)
    return errno == ECHILD ? std::optional(ExitStatus{}) : std::nullopt;  // ECHILD: somebody reaped it before us
  if (info.si_pid == 0) return std::nullopt;
  if (info.si_code == CLD_EXITED) return ExitStatus{.exit_code = info.si_status, .signal = 0};
  return ExitStatus{.exit_code = -1, .signal = info.si_status};
}

void SystemProcesses::reap(pid_t child) {
  (void)assay::try_wait(child);
}

bool SystemProcesses::is_alive(const ProcessIdentity& identity) {
  return assay::is_alive(identity);
}

bool SystemProcesses::group_runs(const ProcessIdentity& leader) {
  if (leader.boot_id != boot_id()) return false;
  if (::kill(-leader.pid, 0) != 0 && errno == ESRCH) return false;
  // The kernel does not give a pid away while a group bears it: a different process under the leader's pid means that
  // the group was empty at some time, and what bears the number now is not ours.
  if (const auto now = identify_process(leader.pid); now.ok() && *now != leader) return false;
  return any_process([&](pid_t pid) {
    const auto process = state_of(pid);
    return process && process->group == leader.pid && runs(*process);
  });
}

void SystemProcesses::signal_group(const ProcessIdentity& leader, int signal) {
  if (group_runs(leader)) (void)assay::signal_group(leader.pid, signal);
}

std::optional<ProcessIdentity> SystemProcesses::find(const std::string& program, const std::string& argument) {
  std::optional<ProcessIdentity> found;
  any_process([&](pid_t pid) {
    if (pid == ::getpid() || !is_ours(pid) || !was_started_as(pid, program, argument)) return false;
    if (const auto identity = identify_process(pid); identity.ok() && assay::is_alive(*identity)) found = *identity;
    return found.has_value();
  });
  return found;
}

UniqueFd SystemProcesses::watch(pid_t pid) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

}  // namespace assay
