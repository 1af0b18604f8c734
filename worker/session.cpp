#include "worker/session.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "base/limits.h"
#include "base/log.h"
#include "proto/worker.grpc.pb.h"
#include "wire/step_columns.h"
#include "worker/utf8.h"

namespace assay {
namespace {

// --- protobuf <-> plain structs ------------------------------------------------------------------------------------

v1::WorkerMessage to_proto(const Hello& hello) {
  v1::WorkerMessage message;
  v1::Hello& out = *message.mutable_hello();
  out.set_worker_id(hello.worker_id);
  out.set_host(hello.host);
  out.set_boot_id(hello.boot_id);
  out.set_pid(hello.pid);
  out.set_start_ticks(hello.start_ticks);
  for (const DeviceInfo& device : hello.devices) {
    v1::Device& d = *out.add_devices();
    d.set_id(device.id);
    d.set_kind(device.kind);
    d.set_name(device.name);
    d.set_memory_bytes(device.memory_bytes);
    d.set_host(hello.host);
    if (const auto user = hello.occupied.find(device.id); user != hello.occupied.end())
      d.set_drained_by(to_utf8(user->second));
  }
  for (const HeldLease& held : hello.leases) {
    v1::HeldLease& l = *out.add_leases();
    l.set_attempt_id(held.lease.attempt_id);
    l.set_lease_epoch(held.lease.epoch);
    l.set_last_acked_seq(held.seq);
    l.set_attempt_key(held.attempt_key);
  }
  return message;
}

v1::WorkerMessage to_proto(const Heartbeat& heartbeat) {
  v1::WorkerMessage message;
  v1::Heartbeat& out = *message.mutable_heartbeat();
  for (const LeaseStatus& status : heartbeat.leases) {
    v1::LeaseStatus& s = *out.add_leases();
    s.set_attempt_id(status.lease.attempt_id);
    s.set_lease_epoch(status.lease.epoch);
    s.set_phase(std::string(to_string(status.phase)));
    s.set_last_step(status.last_step);
  }
  for (const auto& [id, user] : heartbeat.occupied) {
    v1::OccupiedDevice& o = *out.add_occupied();
    o.set_device_id(id);
    o.set_by(to_utf8(user));
  }
  return message;
}

v1::WorkerMessage to_proto(const MetricBatch& batch) {
  v1::WorkerMessage message;
  v1::MetricBatch& out = *message.mutable_metrics();
  out.set_attempt_id(batch.lease.attempt_id);
  out.set_lease_epoch(batch.lease.epoch);
  out.set_first_seq(batch.first_seq);
  to_proto(batch.steps, *out.mutable_columns());
  return message;
}

v1::WorkerMessage to_proto(const AttemptEvent& event) {
  v1::WorkerMessage message;
  v1::AttemptEvent& out = *message.mutable_event();
  out.set_attempt_id(event.lease.attempt_id);
  out.set_lease_epoch(event.lease.epoch);
  out.set_kind(std::string(to_string(event.kind)));
  out.set_log_path(event.log_path);
  out.set_resumed_from_step(event.resumed_from_step);
  out.set_message(to_utf8(event.message));
  if (!event.outcome) return message;
  v1::AttemptOutcome& o = *out.mutable_outcome();
  o.set_result(std::string(to_string(event.outcome->result)));
  o.set_reason(std::string(to_string(event.outcome->reason)));
  o.set_error(to_utf8(event.outcome->error));
  o.set_operation(to_utf8(event.outcome->operation));
  o.set_tensor(to_utf8(event.outcome->tensor));
  o.set_step(event.outcome->step);
  o.set_exit_code(event.outcome->exit_code);
  o.set_signal(event.outcome->signal);
  o.set_peak_mem_mib(event.outcome->peak_mem_mib);
  o.set_log_tail(to_utf8(event.outcome->log_tail));
  return message;
}

template <class Message>
LeaseKey key_of(const Message& message) {
  return {message.attempt_id(), message.lease_epoch()};
}

// Nothing for a message this program does not know: a newer daemon may send it.
std::optional<DaemonMessage> from_proto(const v1::DaemonMessage& message) {
  switch (message.body_case()) {
    case v1::DaemonMessage::kWelcome: {
      WelcomeMessage welcome;
      welcome.heartbeat_ms = message.welcome().heartbeat_ms();
      for (const v1::MetricAck& ack : message.welcome().acks()) welcome.stored.push_back({key_of(ack), ack.seq()});
      return welcome;
    }
    case v1::DaemonMessage::kLease: {
      const v1::Lease& l = message.lease();
      return LeaseMessage{key_of(l),       l.attempt(),
                          l.run(),         l.config_toml(),
                          l.folder(),      l.run_folder(),
                          l.timeout_s(),   {l.device_ids().begin(), l.device_ids().end()},
                          l.attempt_key(), {l.earlier_keys().begin(), l.earlier_keys().end()}};
    }
    case v1::DaemonMessage::kAck:
      return MetricAckMessage{{key_of(message.ack()), message.ack().seq()}};
    case v1::DaemonMessage::kStop:
      return StopMessage{key_of(message.stop()), message.stop().reason()};
    case v1::DaemonMessage::kEventAck:
      return EventAckMessage{key_of(message.event_ack()), message.event_ack().kind()};
    case v1::DaemonMessage::kDrain:
      return DrainMessage{};
    case v1::DaemonMessage::kAbandon:
      return AbandonMessage{key_of(message.abandon())};
    case v1::DaemonMessage::BODY_NOT_SET:
      break;
  }
  log::warn("the daemon sent a message that this worker does not know; it is ignored");
  return std::nullopt;
}

}  // namespace

// --- the stream ----------------------------------------------------------------------------------------------------

// Shared by the loop and gRPC's threads.
struct Session::Inbox {
  std::mutex mutex;
  std::vector<DaemonMessage> messages;
  bool closed = false;
  grpc::Status status;
  UniqueFd wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

  void notify() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake.get(), &one, sizeof one);  // fails only if already readable
  }
};

// One RPC. A read is always outstanding until the stream ends, which keeps the call alive while the loop writes.
class Session::Stream final : public grpc::ClientBidiReactor<v1::WorkerMessage, v1::DaemonMessage> {
 public:
  Stream(const std::string& socket, std::shared_ptr<Inbox> inbox) : inbox_(std::move(inbox)) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(limits::message_bytes);
    // A connection of its own: gRPC's shared one would keep its own pauses between tries.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::WorkerService::NewStub(
        grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
    stub_->async()->Session(&context_, this);
    StartRead(&incoming_);
    StartCall();
  }
  ~Stream() override {
    context_.TryCancel();
    std::unique_lock lock(mutex_);
    done_changed_.wait(lock, [&] { return done_; });
  }

  void write(v1::WorkerMessage message) {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    outbox_.push_back(std::move(message));
    if (outbox_.size() == 1) StartWrite(&outbox_.front());
  }
  size_t backlog() {
    const std::lock_guard lock(mutex_);
    return outbox_.size();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      return;
    }
    if (auto message = from_proto(incoming_)) {
      const std::lock_guard lock(inbox_->mutex);
      inbox_->messages.push_back(*std::move(message));
    }
    inbox_->notify();
    StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    outbox_.pop_front();
    if (ok && !ended_ && !outbox_.empty()) StartWrite(&outbox_.front());
  }
  void OnDone(const grpc::Status& status) override {
    {
      const std::lock_guard lock(inbox_->mutex);
      inbox_->closed = true;
      inbox_->status = status;
    }
    inbox_->notify();
    const std::lock_guard lock(mutex_);
    done_ = true;
    done_changed_.notify_all();  // under the lock: after it the destructor may run
  }

 private:
  std::shared_ptr<Inbox> inbox_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  v1::DaemonMessage incoming_;
  std::mutex mutex_;
  std::condition_variable done_changed_;
  std::deque<v1::WorkerMessage> outbox_;  // front() is being written
  bool ended_ = false;
  bool done_ = false;
};

Session::Session(std::string socket, const Clock& clock)
    : socket_(std::move(socket)),
      clock_(clock),
      inbox_(std::make_shared<Inbox>()),
      pause_ms_(limits::reconnect_min_ms) {
  if (!inbox_->wake) throw std::runtime_error("cannot make an eventfd");
}

Session::~Session() = default;

int Session::wake_fd() const {
  return inbox_->wake.get();
}

int64_t Session::reconnect_in_ms() const {
  if (stream_) return INT64_MAX;
  return std::max<int64_t>(0, connect_at_ms_ - clock_.monotonic_ms());
}

void Session::connect(const Hello& hello) {
  stream_ = std::make_unique<Stream>(socket_, inbox_);
  stream_->write(to_proto(hello));
}

Session::Received Session::receive() {
  Received received;
  grpc::Status status;
  {
    const std::lock_guard lock(inbox_->mutex);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got =
        ::read(inbox_->wake.get(), &count, sizeof count);  // fails only if nothing is there
    received.messages.swap(inbox_->messages);
    received.closed = std::exchange(inbox_->closed, false);
    status = inbox_->status;
  }
  for (const DaemonMessage& message : received.messages) {
    if (!std::holds_alternative<WelcomeMessage>(message)) continue;
    log::info("connected to the daemon at {}", socket_);
    pause_ms_ = limits::reconnect_min_ms;
    reported_ = false;
  }
  if (received.closed) {
    stream_.reset();
    connect_at_ms_ = clock_.monotonic_ms() + pause_ms_;
    pause_ms_ = std::min(pause_ms_ * 2, limits::reconnect_max_ms);
    if (!reported_)
      log::warn("no connection to the daemon at {}: {}; trying again for ever", socket_, status.error_message());
    reported_ = true;
  }
  return received;
}

void Session::send(const Heartbeat& heartbeat) {
  // A daemon that does not read (stopped in a debugger) must not fill our memory with heartbeats.
  if (stream_ && stream_->backlog() < 64) stream_->write(to_proto(heartbeat));
}

void Session::send(const MetricBatch& batch) {
  if (stream_) stream_->write(to_proto(batch));
}

void Session::send(const AttemptEvent& event) {
  if (stream_) stream_->write(to_proto(event));
}

}  // namespace assay
