// Keeps one local assay-worker running. The worker lives in a session of its own and outlives the daemon: a new daemon
// finds it (by <home>/worker.json, else by the worker's own lock) and does not start a second one. A worker that ends
// is started again, with growing pauses if it ends soon; what became of its attempts, the next one's greeting tells.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/process.h"
#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

// How long to wait before a worker that lived `lived_ms` is started again, after a last pause of `last_pause_ms` (0 =
// none).
int64_t restart_pause_ms(int64_t lived_ms, int64_t last_pause_ms);

struct WorkerCommand {
  std::string program;  // absolute path of assay-worker
  std::vector<std::string> arguments;
  std::string output_path;  // its log
};

class WorkerSupervisor {
 public:
  static Result<std::unique_ptr<WorkerSupervisor>> start(const std::string& home, WorkerCommand command, const Clock&);
  ~WorkerSupervisor();  // stops looking after the worker, which goes on

  // The worker is about to be told to end: it is not started again.
  void expect_end() { ending_ = true; }
  // After expect_end(). Waits up to `drain_ms` for that, then sends SIGTERM and waits for as long as it
  // may take to stop its trainers. False (and a line in the log) if it is still there.
  bool wait_for_end(int64_t drain_ms);
  std::optional<ProcessIdentity> worker() const;
  // `worker` cannot serve this daemon, because it is of another version. If it is the one looked after it is killed, so
  // that its trainers go on, and another is started, which takes them over. Any thread.
  void replace(const ProcessIdentity& worker);

 private:
  WorkerSupervisor(std::string home, WorkerCommand command, const Clock& clock, UniqueFd wake);
  void run();
  void launch();
  std::optional<ProcessIdentity> find_running() const;
  void adopt(const ProcessIdentity& identity);
  void sleep_until_change(int64_t at_most_ms);
  void note_end();
  std::string record_path() const { return home_ + "/worker.json"; }

  const std::string home_;
  const WorkerCommand command_;
  const Clock& clock_;
  UniqueFd wake_;  // eventfd
  std::atomic<bool> stop_ = false;
  std::atomic<bool> ending_ = false;
  mutable std::mutex mutex_;  // worker_
  std::optional<ProcessIdentity> worker_;
  // The thread's own.
  UniqueFd exit_fd_;        // pidfd of the worker
  int64_t started_at_ = 0;  // monotonic
  int64_t start_again_at_ = 0;
  int64_t pause_ms_ = 0;
  std::thread thread_;
};

}  // namespace assay
