// Child processes and the identity of processes that may outlive us.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace assay {

struct SpawnOptions {
  std::string program;                             // absolute path
  std::vector<std::string> arguments;              // without argv[0]
  std::map<std::string, std::string> environment;  // added to ours
  std::string output_path;                         // stdout and stderr are appended here; empty = inherit
  bool new_session = false;                        // setsid(): outlives our terminal and our process group
};

// Start a child in a process group of its own (pgid == pid). It has the null device as stdin, default signal handling,
// an empty signal mask, and none of our descriptors but stdin, stdout and stderr (everything from 3 on is closed by
// exec). Returns once the program runs. Errors name the program and the reason.
Result<pid_t> spawn(const SpawnOptions& options);

// Exactly one of three: it called exit (exit_code 0..255, signal 0); a signal ended it (exit_code -1, signal > 0);
// unknown (-1, 0): not a child of ours, or its end was already taken.
struct ExitStatus {
  int exit_code = -1;
  int signal = 0;
  bool operator==(const ExitStatus&) const = default;
};
// "SIGSEGV (Segmentation fault)"
std::string signal_name(int signal);
// "ended with exit code 3", "was ended by SIGKILL (Killed)"; "ended" if it is unknown.
std::string how_it_ended(const ExitStatus&);
// Non-blocking waitpid: nothing while the child runs (stopped counts as running); its end is returned once.
std::optional<ExitStatus> try_wait(pid_t pid);

// How a function ended that ran in a fork of this process.
struct ForkEnd {
  ExitStatus status;
  std::string last_words;  // the last line that was written to its stderr
};
// Runs `work` in a fork of this process and waits: a library that aborts, or calls exit, takes only the fork with it.
// What `work` returns is the fork's exit code. Its stderr is caught; `terminal` is ours, for what a person is to see.
// The fork dies with this process. Not for a program that has threads.
Result<ForkEnd> run_in_fork(const std::function<int(int terminal)>& work);

// Send to the whole group. True if the group still existed.
bool signal_group(pid_t pgid, int signal);

// A pid alone may be reused: (pid, start time, boot id) names a process for ever. Source: proc(5), stat field 22.
struct ProcessIdentity {
  pid_t pid = 0;
  int64_t start_ticks = 0;
  std::string boot_id;
  bool operator==(const ProcessIdentity&) const = default;
};
Result<ProcessIdentity> identify_process(pid_t pid);
// True only if that very process runs now (a zombie does not count).
bool is_alive(const ProcessIdentity& identity);

std::string boot_id();
std::string host_name();
// The folder of the running program, where its sibling programs are.
std::string program_folder();

}  // namespace assay
