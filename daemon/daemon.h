// The daemon put together: home folder, stores, queue, services, local worker. main.cpp adds flags and signals.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "base/unique_handle.h"
#include "daemon/event_feed.h"
#include "daemon/grpc_server.h"
#include "daemon/queue.h"
#include "daemon/queue_loop.h"
#include "daemon/queue_service.h"
#include "daemon/worker_service.h"
#include "daemon/worker_supervisor.h"

namespace assay {

struct DaemonOptions {
  std::string home;  // absolute
  bool allow_faults = false;
  std::string worker_program;  // empty = no local worker
  // Called once somebody asks the daemon to stop; then call Daemon::stop from another thread.
  std::function<void()> on_shutdown;
};

class Daemon {
 public:
  static Result<std::unique_ptr<Daemon>> start(DaemonOptions options, const Clock& clock);
  ~Daemon();

  // Ends the daemon. What a Shutdown call asked for decides about the workers; without one (SIGTERM) they and their
  // runs go on, and the next daemon takes them over. With stop_workers: trainers are asked to stop, their runs go back
  // to the queue without using up a retry, the worker ends.
  void stop();

 private:
  Daemon(DaemonOptions options, const Clock& clock) : options_(std::move(options)), clock_(clock) {}
  Status open();
  void stop_workers();

  const DaemonOptions options_;
  const Clock& clock_;
  std::atomic<bool> stop_workers_ = false;
  // In the order in which they depend on one another.
  UniqueFd lock_;
  std::unique_ptr<RunStore> runs_;
  std::unique_ptr<MetricStore> metrics_;
  std::unique_ptr<Queue> queue_;
  EventFeed feed_;
  std::unique_ptr<QueueLoop> loop_;
  std::unique_ptr<QueueService> queue_service_;
  std::unique_ptr<WorkerService> worker_service_;
  std::unique_ptr<GrpcServer> server_;
  std::mutex supervisor_mutex_;  // a worker may be refused while the supervisor comes or goes
  std::unique_ptr<WorkerSupervisor> supervisor_;
};

}  // namespace assay
