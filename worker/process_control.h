// What the worker does to processes, behind an interface so that lease_runner is tested without any.
#pragma once

#include <optional>
#include <string>

#include "base/process.h"
#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

class ProcessControl {
 public:
  virtual ~ProcessControl() = default;
  virtual Result<ProcessIdentity> spawn(const SpawnOptions&) = 0;
  // How a child of ours ended, leaving it unreaped so that its pid cannot be given to another process yet. Nothing
  // while it runs, or if it is no child of ours.
  virtual std::optional<ExitStatus> peek_exit(pid_t child) = 0;
  virtual void reap(pid_t child) = 0;
  virtual bool is_alive(const ProcessIdentity&) = 0;
  // Does the group that `leader` founded have a member that runs (zombies do not count)?
  virtual bool group_runs(const ProcessIdentity& leader) = 0;
  virtual void signal_group(const ProcessIdentity& leader, int signal) = 0;
  // The process of this user that was started as `program` with `argument` among its arguments.
  virtual std::optional<ProcessIdentity> find(const std::string& program, const std::string& argument) = 0;
  // Readable when the process ends; empty if the kernel cannot tell us (then polling finds it).
  virtual UniqueFd watch(pid_t pid) = 0;
};

class SystemProcesses final : public ProcessControl {
 public:
  Result<ProcessIdentity> spawn(const SpawnOptions&) override;
  std::optional<ExitStatus> peek_exit(pid_t child) override;
  void reap(pid_t child) override;
  bool is_alive(const ProcessIdentity&) override;
  bool group_runs(const ProcessIdentity& leader) override;
  void signal_group(const ProcessIdentity& leader, int signal) override;
  std::optional<ProcessIdentity> find(const std::string& program, const std::string& argument) override;
  UniqueFd watch(pid_t pid) override;
};

}  // namespace assay
