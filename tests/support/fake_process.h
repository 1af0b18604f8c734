// Processes that exist only in the test: it decides when they end and sees every signal.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "worker/process_control.h"

namespace assay {

class FakeProcesses final : public ProcessControl {
 public:
  struct Process {
    SpawnOptions options;
    ProcessIdentity identity;
    bool child = true;               // of the current worker
    std::optional<ExitStatus> exit;  // set when it has ended
    bool reaped = false;
    bool stragglers = false;  // others in its group still run
    bool straggler_survives_kill = false;
  };

  Result<ProcessIdentity> spawn(const SpawnOptions& options) override {
    if (!spawn_error.empty()) return Error{ErrorCode::not_found, spawn_error};
    Process process;
    process.options = options;
    process.identity = {next_pid_++, 7000, boot_id()};
    processes[process.identity.pid] = process;
    return process.identity;
  }
  std::optional<ExitStatus> peek_exit(pid_t pid) override {
    const Process& process = processes.at(pid);
    return process.child ? process.exit : std::nullopt;
  }
  void reap(pid_t pid) override { processes.at(pid).reaped = true; }
  bool is_alive(const ProcessIdentity& identity) override {
    const auto it = processes.find(identity.pid);
    return it != processes.end() && it->second.identity == identity && !it->second.exit;
  }
  bool group_runs(const ProcessIdentity& leader) override {
    const auto it = processes.find(leader.pid);
    return it != processes.end() && it->second.identity == leader && (!it->second.exit || it->second.stragglers);
  }
  void signal_group(const ProcessIdentity& leader, int signal) override {
    signals.emplace_back(leader.pid, signal);
    Process& process = processes.at(leader.pid);
    if (signal != 9) return;
    if (!process.exit) process.exit = ExitStatus{.exit_code = -1, .signal = 9};
    process.stragglers = process.straggler_survives_kill;
  }
  std::optional<ProcessIdentity> find(const std::string& program, const std::string& argument) override {
    for (const auto& [pid, process] : processes) {
      if (process.exit || process.options.program != program) continue;
      for (const std::string& one : process.options.arguments)
        if (one == argument) return process.identity;
    }
    return std::nullopt;
  }
  UniqueFd watch(pid_t) override { return {}; }

  // --- the test's side ---
  Process& last() { return processes.rbegin()->second; }
  void end(pid_t pid, ExitStatus status) { processes.at(pid).exit = status; }
  // The worker dies: its children are nobody's.
  void orphan_all() {
    for (auto& [pid, process] : processes) process.child = false;
  }

  std::map<pid_t, Process> processes;
  std::vector<std::pair<pid_t, int>> signals;
  std::string spawn_error;

 private:
  pid_t next_pid_ = 4'000'000;  // no system call ever sees these
};

}  // namespace assay
