#include "worker/session.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <stdexcept>

#include "base/limits.h"
#include "base/log.h"
#include "proto/worker.grpc.pb.h"
#include "wire/convert.h"

namespace assay {

// Shared by the loop and gRPC's threads.
struct Session::Inbox {
  std::mutex mutex;
  std::vector<DaemonMessage> messages;
  bool closed = false;
  grpc::Status status;
  std::string other_protocol;  // Received::other_protocol
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
    take(from_proto(incoming_));
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
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) inbox_->other_protocol = status.error_message();
    }
    inbox_->notify();
    const std::lock_guard lock(mutex_);
    done_ = true;
    done_changed_.notify_all();  // under the lock: after it the destructor may run
  }

 private:
  void take(Result<DaemonMessage> message) {
    if (message.ok()) {
      const std::lock_guard lock(inbox_->mutex);
      return inbox_->messages.push_back(std::move(*message));
    }
    if (message.error().code == ErrorCode::failed_precondition) {
      const std::lock_guard lock(inbox_->mutex);
      inbox_->other_protocol = message.error().message;
      return context_.TryCancel();
    }
    log::error("the daemon's message is left aside: {}", message.error().message);
    write(to_proto(Problem{message.error().message}));
    if (!incoming_.has_lease()) return;
    // Left without an answer, its device would wait for this worker for ever.
    const LeaseKey lease{incoming_.lease().attempt_id(), incoming_.lease().lease_epoch()};
    write(to_proto(AttemptEvent{.lease = lease, .kind = AttemptNews::refused, .message = message.error().message}));
  }

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
    received.other_protocol = inbox_->other_protocol;
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
