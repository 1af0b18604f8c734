#include "daemon/daemon.h"

#include <chrono>
#include <thread>

#include "base/home.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/version.h"
#include "daemon/home_lock.h"

namespace assay {
namespace {

// After their trainers have had limits::stop_grace_ms, workers still report the ends.
constexpr int64_t report_ms = 5'000;
constexpr int64_t stop_poll_ms = 20;

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::start(DaemonOptions options, const Clock& clock) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(options), clock));
  ASSAY_TRY(daemon->open());
  return daemon;
}

Status Daemon::open() {
  const std::string& home = options_.home;
  ASSAY_ASSIGN(const std::string socket, socket_path(home));
  ASSAY_ASSIGN(lock_, lock_home(home));
  ASSAY_ASSIGN(runs_, RunStore::open(home + "/queue.db", clock_));
  ASSAY_ASSIGN(metrics_, MetricStore::open(home + "/metrics.db", runs_->store_id()));
  ASSAY_ASSIGN(queue_, Queue::open(*runs_, *metrics_, clock_, home));
  queue_->on_events([this] { feed_.notify(); });
  loop_ = std::make_unique<QueueLoop>(*queue_);
  queue_service_ = std::make_unique<QueueService>(QueueServiceContext{.runs = *runs_,
                                                                      .metrics = *metrics_,
                                                                      .loop = *loop_,
                                                                      .feed = feed_,
                                                                      .clock = clock_,
                                                                      .home = home,
                                                                      .version = version(),
                                                                      .allow_faults = options_.allow_faults,
                                                                      .started_at = clock_.unix_ms(),
                                                                      .shut_down = [this](bool stop_workers) {
                                                                        stop_workers_ = stop_workers;
                                                                        if (options_.on_shutdown)
                                                                          options_.on_shutdown();
                                                                      }});
  worker_service_ = std::make_unique<WorkerService>(*loop_, [this](const ProcessIdentity& worker) {
    std::lock_guard lock(supervisor_mutex_);
    if (supervisor_) supervisor_->replace(worker);
  });
  ASSAY_ASSIGN(server_, GrpcServer::start(socket, {queue_service_.get(), worker_service_.get()}));
  if (!options_.worker_program.empty()) {
    WorkerCommand command{options_.worker_program, {"--home", home, "--socket", socket}, worker_log_path(home)};
    if (options_.allow_faults) command.arguments.push_back("--allow-fault-injection");
    ASSAY_ASSIGN(auto supervisor, WorkerSupervisor::start(home, std::move(command), clock_));
    std::lock_guard lock(supervisor_mutex_);
    supervisor_ = std::move(supervisor);
  }
  log::info("serving {}", socket);
  return {};
}

void Daemon::stop() {
  if (!server_) return;
  if (stop_workers_) stop_workers();
  {
    std::lock_guard lock(supervisor_mutex_);
    supervisor_.reset();
  }
  feed_.close();
  server_.reset();
  loop_->stop();
  log::info("stopped{}", stop_workers_ ? "" : "; workers and their runs go on");
}

Daemon::~Daemon() {
  stop();
}

void Daemon::stop_workers() {
  if (supervisor_) supervisor_->expect_end();
  loop_->post([](Queue& queue) { queue.stop_workers("stopped by assay down"); });
  const int64_t deadline = clock_.monotonic_ms() + limits::stop_grace_ms + report_ms;
  bool stopped = false;
  while (!stopped && clock_.monotonic_ms() < deadline) {
    const auto asked = loop_->call<bool>([](Queue& queue) { return Result<bool>(queue.stopped()); });
    stopped = !asked.ok() || *asked;  // a queue that cannot store cannot be waited for either
    if (!stopped) std::this_thread::sleep_for(std::chrono::milliseconds(stop_poll_ms));
  }
  if (!stopped) log::error("some runs did not stop in time; their worker reports them to the next daemon");
  if (supervisor_) supervisor_->wait_for_end(report_ms);
}

}  // namespace assay
