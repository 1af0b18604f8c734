#include "daemon/worker_supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"

namespace assay {
namespace {

using Json = nlohmann::json;

// A worker that lived this long was sound; its end is no sign of a broken binary.
constexpr int64_t sound_life_ms = 60'000;
constexpr int64_t end_poll_ms = 20;

Status write_record(const std::string& path, const ProcessIdentity& identity) {
  const Json json = {{"pid", identity.pid}, {"start_ticks", identity.start_ticks}, {"boot_id", identity.boot_id}};
  return write_file_atomically(path, json.dump() + "\n", 0600);
}

std::optional<ProcessIdentity> read_record(const std::string& path) {
  const auto text = read_file(path, 4096);
  if (!text.ok()) return std::nullopt;
  const Json json = Json::parse(*text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    return ProcessIdentity{json.at("pid"), json.at("start_ticks"), json.at("boot_id")};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

// The process that holds the worker's lock of this home, if any: one that a killed daemon could not record any more.
std::optional<ProcessIdentity> lock_holder(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::flock(fd.get(), LOCK_SH | LOCK_NB) == 0) return std::nullopt;
  const auto text = read_file(path, 64);
  if (!text.ok()) return std::nullopt;
  const auto identity = identify_process(static_cast<pid_t>(std::atoll(text->c_str())));
  return identity.ok() ? std::optional(*identity) : std::nullopt;
}

}  // namespace

int64_t restart_pause_ms(int64_t lived_ms, int64_t last_pause_ms) {
  if (lived_ms >= sound_life_ms || last_pause_ms == 0) return limits::worker_restart_min_ms;
  return std::min(2 * last_pause_ms, limits::worker_restart_max_ms);
}

Result<std::unique_ptr<WorkerSupervisor>> WorkerSupervisor::start(const std::string& home, WorkerCommand command,
                                                                  const Clock& clock) {
  if (::access(command.program.c_str(), X_OK) != 0)
    return Error{ErrorCode::not_found,
                 fmt::format("{} is not there; install it beside assayd, or start the daemon with "
                             "--no-worker",
                             command.program)};
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return Error{ErrorCode::internal, "cannot make an eventfd"};
  return std::unique_ptr<WorkerSupervisor>(new WorkerSupervisor(home, std::move(command), clock, std::move(wake)));
}

WorkerSupervisor::WorkerSupervisor(std::string home, WorkerCommand command, const Clock& clock, UniqueFd wake)
    : home_(std::move(home)), command_(std::move(command)), clock_(clock), wake_(std::move(wake)) {
  thread_ = std::thread([this] { run(); });
}

WorkerSupervisor::~WorkerSupervisor() {
  stop_ = true;
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) != sizeof one) log::error("cannot wake the worker's supervisor");
  if (thread_.joinable()) thread_.join();
}

std::optional<ProcessIdentity> WorkerSupervisor::worker() const {
  std::lock_guard lock(mutex_);
  return worker_;
}

void WorkerSupervisor::replace(const ProcessIdentity& worker) {
  std::lock_guard lock(mutex_);
  if (ending_ || worker_ != worker || !is_alive(worker)) return;
  log::warn("worker (pid {}) is of another version and is replaced; its runs go on", worker.pid);
  ::kill(worker.pid, SIGKILL);  // SIGTERM would make it stop them
}

void WorkerSupervisor::run() {
  while (!stop_) {
    const auto known = worker();
    if (known && !is_alive(*known)) {
      note_end();
    } else if (known) {
      sleep_until_change(-1);
    } else if (ending_) {
      sleep_until_change(-1);
    } else if (const int64_t wait = start_again_at_ - clock_.monotonic_ms(); wait > 0) {
      sleep_until_change(wait);
    } else {
      launch();
    }
  }
}

// Until the worker ends or the destructor calls; -1 = for as long as it takes.
void WorkerSupervisor::sleep_until_change(int64_t at_most_ms) {
  std::array<pollfd, 2> fds = {pollfd{wake_.get(), POLLIN, 0}, pollfd{exit_fd_.get(), POLLIN, 0}};
  // Without a pidfd (an old kernel) the worker is looked at once a second.
  const int64_t timeout = exit_fd_ || !worker() || at_most_ms >= 0 ? at_most_ms : 1'000;
  ::poll(fds.data(), exit_fd_ ? 2 : 1, static_cast<int>(timeout));
}

std::optional<ProcessIdentity> WorkerSupervisor::find_running() const {
  if (const auto recorded = read_record(record_path()); recorded && is_alive(*recorded)) return recorded;
  return lock_holder(home_ + "/worker/lock");
}

void WorkerSupervisor::adopt(const ProcessIdentity& identity) {
  exit_fd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, identity.pid, 0)));
  started_at_ = clock_.monotonic_ms();
  std::lock_guard lock(mutex_);
  worker_ = identity;
}

void WorkerSupervisor::launch() {
  if (const auto running = find_running()) {
    log::info("worker (pid {}) runs already", running->pid);
    return adopt(*running);
  }
  const SpawnOptions options{.program = command_.program,
                             .arguments = command_.arguments,
                             .output_path = command_.output_path,
                             .new_session = true};
  const auto pid = spawn(options);
  const auto identity = pid.ok() ? identify_process(*pid) : Result<ProcessIdentity>(pid.error());
  if (!identity.ok()) {
    log::error("the worker was not started: {}", identity.error().message);
    pause_ms_ = restart_pause_ms(0, pause_ms_);
    start_again_at_ = clock_.monotonic_ms() + pause_ms_;
    if (pid.ok()) try_wait(*pid);
    return;
  }
  if (Status written = write_record(record_path(), *identity); !written.ok())
    log::error("{}", written.error().message);  // the next daemon finds the worker by its lock
  log::info("worker started (pid {}), log: {}", identity->pid, command_.output_path);
  adopt(*identity);
}

void WorkerSupervisor::note_end() {
  const auto ended = try_wait(worker_->pid);  // nothing if it was no child of ours
  const int64_t lived = clock_.monotonic_ms() - started_at_;
  pause_ms_ = restart_pause_ms(lived, pause_ms_);
  start_again_at_ = clock_.monotonic_ms() + pause_ms_;
  const std::string how = how_it_ended(ended.value_or(ExitStatus{}));  // of a former daemon's worker it is not told
  log::write(ending_ ? log::Level::info : log::Level::warn,
             fmt::format("worker (pid {}) {} after {} s", worker_->pid, how, lived / 1000));
  exit_fd_.reset();
  std::lock_guard lock(mutex_);
  worker_.reset();
}

bool WorkerSupervisor::wait_for_end(int64_t drain_ms) {
  stop_ = true;
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) != sizeof one) log::error("cannot wake the worker's supervisor");
  thread_.join();
  if (!worker_) return true;
  // Draining, then SIGTERM: the worker then ends its trainers itself, which takes it up to the grace period.
  for (const int64_t wait_ms : {drain_ms, limits::stop_grace_ms + drain_ms}) {
    const int64_t deadline = clock_.monotonic_ms() + wait_ms;
    while (is_alive(*worker_) && clock_.monotonic_ms() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(end_poll_ms));
    if (!is_alive(*worker_)) {
      try_wait(worker_->pid);
      return true;
    }
    if (wait_ms == drain_ms) ::kill(worker_->pid, SIGTERM);
  }
  log::error("worker (pid {}) does not end; it is left running", worker_->pid);
  return false;
}

}  // namespace assay
