#include "worker/agent.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <random>

#include "base/file.h"
#include "base/home.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "base/version.h"

namespace assay {
namespace {

std::string worker_folder(const std::string& home) {
  return home + "/worker";
}
std::string leases_folder(const std::string& home) {
  return worker_folder(home) + "/leases";
}

// "12.7" -> attempt 12, epoch 7. Nothing for any other name (a temporary file of an interrupted write).
std::optional<LeaseKey> parse_lease_name(const std::string& name) {
  LeaseKey key;
  const char* end = name.data() + name.size();
  const auto attempt = std::from_chars(name.data(), end, key.attempt_id);
  if (attempt.ec != std::errc() || attempt.ptr == end || *attempt.ptr != '.') return std::nullopt;
  const auto epoch = std::from_chars(attempt.ptr + 1, end, key.epoch);
  if (epoch.ec != std::errc() || epoch.ptr != end) return std::nullopt;
  return key;
}

}  // namespace

Result<std::string> stable_worker_id(const std::string& home) {
  const std::string path = worker_folder(home) + "/id";
  auto known = read_file(path, limits::name_chars);
  if (known.ok() && !known->empty()) return known;
  if (!known.ok() && known.error().code != ErrorCode::not_found) return known.error();
  std::random_device random;
  const std::string id = fmt::format("{}-{:08x}", host_name(), random());
  ASSAY_TRY(make_folders(worker_folder(home), 0700));
  ASSAY_TRY(write_file_atomically(path, id, 0600));
  return id;
}

Result<UniqueFd> lock_worker(const std::string& home) {
  ASSAY_TRY(make_folders(worker_folder(home), 0700));
  const std::string path = worker_folder(home) + "/lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return Error{ErrorCode::internal, fmt::format("cannot open {}: {}", path, std::strerror(errno))};
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK)
      return Error{ErrorCode::internal, fmt::format("cannot lock {}: {}", path, std::strerror(errno))};
    char holder[32] = {};
    const ssize_t got = ::pread(fd.get(), holder, sizeof holder - 1, 0);
    return Error{
        ErrorCode::failed_precondition,
        fmt::format("another worker (pid {}) serves {}; one home has one worker", got > 0 ? holder : "unknown", home)};
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return Error{ErrorCode::internal, fmt::format("cannot write {}: {}", path, std::strerror(errno))};
  return fd;
}

Agent::Agent(std::string home, std::string worker_id, std::vector<DeviceInfo> devices, DeviceUse& use,
             const RunnerContext& context)
    : home_(std::move(home)),
      worker_id_(std::move(worker_id)),
      devices_(std::move(devices)),
      use_(use),
      context_(context),
      heartbeat_ms_(limits::heartbeat_ms) {}

std::string Agent::index_path(const LeaseKey& key) const {
  return fmt::format("{}/{}.{}", leases_folder(home_), key.attempt_id, key.epoch);
}

Status Agent::recover() {
  ASSAY_TRY(make_folders(leases_folder(home_), 0700));
  std::vector<LeaseKey> keys;
  std::error_code error;
  for (std::filesystem::directory_iterator it(leases_folder(home_), error), end; !error && it != end;
       it.increment(error))
    if (const auto key = parse_lease_name(it->path().filename().string())) keys.push_back(*key);
  if (error)
    return Error{ErrorCode::internal, fmt::format("cannot read {}: {}", leases_folder(home_), error.message())};
  for (const LeaseKey& key : keys) {
    ASSAY_ASSIGN(const std::string folder, read_file(index_path(key), limits::path_chars));
    if (auto runner = LeaseRunner::recover(key, path_from_home(home_, folder), context_))
      runners_.push_back(std::move(runner));
    else  // nothing had been started: the daemon will offer it again
      std::filesystem::remove(index_path(key), error);
  }
  return {};
}

Hello Agent::hello() {
  Hello hello;
  hello.version = version();
  hello.worker_id = worker_id_;
  hello.host = host_name();
  hello.boot_id = boot_id();
  hello.pid = ::getpid();
  if (const auto self = identify_process(::getpid()); self.ok()) hello.start_ticks = self->start_ticks;
  hello.devices = devices_;
  if (const int64_t now = context_.clock.monotonic_ms(); now >= next_look_ms_) {
    for (const DeviceInfo& device : devices_) look_at(device.id);
    next_look_ms_ = now + heartbeat_ms_;
  }
  hello.occupied = occupied_;
  for (const auto& runner : runners_) hello.leases.push_back(runner->held());
  return hello;
}

// --- messages ------------------------------------------------------------------------------------------------------

void Agent::handle(const DaemonMessage& message) {
  std::visit([this](const auto& body) { on(body); }, message);
}

void Agent::on(const WelcomeMessage& welcome) {
  online_ = true;
  heartbeat_ms_ = welcome.heartbeat_ms > 0 ? welcome.heartbeat_ms : limits::heartbeat_ms;
  next_heartbeat_ms_ = context_.clock.monotonic_ms();
  for (const auto& runner : runners_) {
    int64_t seq = runner->held().seq;
    for (const StoredSeq& stored : welcome.stored)
      if (stored.lease == runner->key()) seq = stored.seq;
    runner->welcome(seq);
  }
}

void Agent::on(const LeaseMessage& offered) {
  LeaseMessage lease = offered;
  if (const LeaseRunner* held = find(lease.lease)) {
    if (held->held().attempt_key != lease.attempt_key)
      refuse(lease.lease, "an attempt of another queue under the same numbers has not ended yet");
    return;  // else it is offered again after a reconnect
  }
  for (const auto& runner : runners_)
    if (runner->key().attempt_id == lease.lease.attempt_id)
      return refuse(lease.lease,
                    fmt::format("attempt {} is held under epoch {}", lease.lease.attempt_id, runner->key().epoch));
  if (draining_ || shutting_down_) return refuse(lease.lease, "the worker is draining and takes no new lease");
  std::vector<std::string> used;
  for (const std::string& id : lease.device_ids)
    for (std::string& user : users_of(id)) used.push_back(std::move(user));
  if (!used.empty()) {
    send_heartbeat();  // goes first, so that the run is not given the same devices again
    return refuse(lease.lease, fmt::format("{}", fmt::join(used, ", ")));
  }
  auto folder = LeaseRunner::choose_folder(lease);
  if (!folder.ok()) return refuse(lease.lease, folder.error().message);
  lease.folder = std::move(folder).value();
  Status indexed = write_file_atomically(index_path(lease.lease), path_in_home(home_, lease.folder), 0600);
  if (!indexed.ok()) return refuse(lease.lease, indexed.error().message);
  auto runner = LeaseRunner::start(lease, context_);
  if (!runner.ok()) {
    std::error_code ignored;
    std::filesystem::remove(index_path(lease.lease), ignored);
    return refuse(lease.lease, runner.error().message);
  }
  log::info("attempt {} ({}): started in {}", lease.lease.attempt_id, lease.run, lease.folder);
  runners_.push_back(std::move(runner).value());
}

void Agent::refuse(const LeaseKey& lease, const std::string& why) {
  log::warn("attempt {}: refused, {}", lease.attempt_id, why);
  AttemptEvent event;
  event.lease = lease;
  event.kind = AttemptNews::refused;
  event.message = why;
  context_.uplink.send(event);
}

void Agent::on(const MetricAckMessage& ack) {
  if (LeaseRunner* runner = find(ack.stored.lease)) runner->metrics_stored(ack.stored.seq);
}

void Agent::on(const StopMessage& stop) {
  if (LeaseRunner* runner = find(stop.lease)) runner->stop(stop.reason);
}

void Agent::on(const EventAckMessage& ack) {
  LeaseRunner* runner = find(ack.lease);
  if (runner && ack.kind == AttemptNews::ended) runner->end_acknowledged();
}

void Agent::on(const AbandonMessage& abandon) {
  if (LeaseRunner* runner = find(abandon.lease)) runner->abandon();
}

LeaseRunner* Agent::find(const LeaseKey& key) {
  for (const auto& runner : runners_)
    if (runner->key() == key) return runner.get();
  return nullptr;
}

// --- time ----------------------------------------------------------------------------------------------------------

void Agent::tick() {
  for (const auto& runner : runners_) runner->tick(online_);
  forget_finished();
  const int64_t now = context_.clock.monotonic_ms();
  if (online_ && now >= next_heartbeat_ms_) {
    for (const auto& [id, user] : OccupiedDevices(occupied_)) look_at(id);
    send_heartbeat();
    next_heartbeat_ms_ = now + heartbeat_ms_;
  }
  const bool all_ended = std::all_of(runners_.begin(), runners_.end(), [](const auto& r) { return r->ended(); });
  if (shutting_down_ && all_ended && farewell_at_ms_ == 0) farewell_at_ms_ = now + limits::farewell_ms;
}

void Agent::forget_finished() {
  std::erase_if(runners_, [&](const auto& runner) {
    if (!runner->forgettable()) return false;
    std::error_code error;
    std::filesystem::remove(index_path(runner->key()), error);
    if (error) log::error("cannot remove {}: {}", index_path(runner->key()), error.message());
    if (runner->trainer_pid() != 0) former_trainers_.push_back(runner->trainer_pid());
    if (former_trainers_.size() > limits::former_trainers) former_trainers_.pop_front();
    return true;
  });
}

void Agent::send_heartbeat() {
  Heartbeat heartbeat{.occupied = occupied_};
  for (const auto& runner : runners_) heartbeat.leases.push_back(runner->status());
  context_.uplink.send(heartbeat);
}

// Is anybody else's process on it? Where the driver does not tell, what was seen last stands. All processes on it.
std::vector<int64_t> Agent::look_at(const std::string& device_id) {
  auto pids = use_.users(device_id);
  if (!pids) return {};
  std::vector<std::string> users;
  for (const int64_t pid : *pids)
    if (!is_ours(pid)) users.push_back(name_process(pid));
  if (users.empty())
    occupied_.erase(device_id);
  else
    occupied_[device_id] = first_of(users, 1);
  return *std::move(pids);
}

// What keeps a trainer from being started on the device, our own former ones too: "GPU-a is used by python3 (pid 7)".
std::vector<std::string> Agent::users_of(const std::string& device_id) {
  std::vector<std::string> users;
  for (const int64_t pid : look_at(device_id))
    for (const auto& runner : runners_)
      if (runner->owns(pid))
        users.push_back(
            fmt::format("the trainer of attempt {} has not left {} yet", runner->key().attempt_id, device_id));
  if (const auto others = occupied_.find(device_id); others != occupied_.end())
    users.push_back(fmt::format("{} is used by {}", device_id, others->second));
  return users;
}

// The driver may name a trainer for a moment after its end.
bool Agent::is_ours(int64_t pid) const {
  bool was_ours = std::find(former_trainers_.begin(), former_trainers_.end(), pid) != former_trainers_.end();
  for (const auto& runner : runners_) {
    if (runner->owns(pid)) return true;
    was_ours = was_ours || runner->trainer_pid() == pid;
  }
  return was_ours && !identify_process(static_cast<pid_t>(pid)).ok();
}

int64_t Agent::sleep_ms() const {
  int64_t until = limits::heartbeat_ms;
  const int64_t now = context_.clock.monotonic_ms();
  if (online_) until = std::clamp<int64_t>(next_heartbeat_ms_ - now, 0, heartbeat_ms_);
  if (farewell_at_ms_ != 0) until = std::min(until, std::max<int64_t>(0, farewell_at_ms_ - now));
  for (const auto& runner : runners_)
    if (!runner->ended()) until = std::min(until, limits::live_poll_ms);
  return until;
}

std::vector<int> Agent::exit_fds() const {
  std::vector<int> fds;
  for (const auto& runner : runners_)
    if (const int fd = runner->exit_fd(); fd >= 0) fds.push_back(fd);
  return fds;
}

void Agent::shut_down() {
  shutting_down_ = true;
  for (const auto& runner : runners_) runner->stop(StopReason::worker_stopped);
}

bool Agent::finished() const {
  if (runners_.empty()) return draining_ || shutting_down_;
  return farewell_at_ms_ != 0 && context_.clock.monotonic_ms() >= farewell_at_ms_;
}

}  // namespace assay
