#include "daemon/worker_service.h"

#include <deque>
#include <memory>
#include <mutex>

#include "base/log.h"
#include "daemon/grpc_status.h"
#include "wire/convert.h"

namespace assay {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::WorkerMessage, v1::DaemonMessage>;

class Session;

// What the queue holds of a stream. It may outlive the stream: then messages go nowhere, and the worker's next greeting
// makes them good.
class SessionLink final : public WorkerLink {
 public:
  explicit SessionLink(Session* session) : session_(session) {}
  void send(DaemonMessage message) override;
  void close(const std::string& why) override;
  void session_ended() {
    std::lock_guard lock(mutex_);
    session_ = nullptr;
  }

 private:
  std::mutex mutex_;
  Session* session_;
};

// One stream. gRPC calls the On... functions, one read and one write at a time, from any of its threads.
class Session final : public Reactor {
 public:
  Session(QueueLoop& loop, const WorkerService::OtherProtocol& other_protocol, grpc::CallbackServerContext* context)
      : loop_(loop), other_protocol_(other_protocol), context_(context), link_(std::make_shared<SessionLink>(this)) {
    StartRead(&incoming_);
  }

  void send(const DaemonMessage& message) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    outgoing_.push_back(to_proto(message));
    if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
  }

  void close(const std::string& why) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    log::warn("a worker's session is closed: {}", why);
    if (!outgoing_.empty()) return context_->TryCancel();  // it may not read any more: nothing waits for it
    finish(to_grpc(Error{ErrorCode::aborted, why}));       // the pending read fails
  }

  void OnReadDone(bool ok) override {
    if (!ok) return end(grpc::Status::OK);
    auto message = from_proto(incoming_);
    if (!message.ok()) return refuse(message.error());
    if (std::holds_alternative<Hello>(*message) == greeted_)
      return end(
          {grpc::StatusCode::FAILED_PRECONDITION, greeted_ ? "a second hello" : "the first message must be a hello"});
    greeted_ = true;
    if (const auto* problem = std::get_if<Problem>(&*message))
      log::error("a worker did not understand a message: {}", problem->message);
    loop_.post([link = link_, message = std::move(*message)](Queue& queue) { take(queue, link, message); });
    if (!read_next()) end(grpc::Status::OK);
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    outgoing_.pop_front();
    if (!ok) outgoing_.clear();
    if (ended_) {
      Finish(status_);
    } else if (!outgoing_.empty()) {
      StartWrite(&outgoing_.front());
    }
  }

  void OnDone() override {
    link_->session_ended();
    delete this;
  }

 private:
  // False: the stream was finished meanwhile.
  bool read_next() {
    std::lock_guard lock(mutex_);
    if (!ended_) StartRead(&incoming_);
    return !ended_;
  }

  static void take(Queue& queue, const std::shared_ptr<SessionLink>& link, const WorkerMessage& message) {
    if (auto* hello = std::get_if<Hello>(&message)) queue.greet(link, *hello);
    if (auto* heartbeat = std::get_if<Heartbeat>(&message)) queue.heartbeat(link.get(), *heartbeat);
    if (auto* batch = std::get_if<MetricBatch>(&message)) queue.steps(link.get(), *batch);
    if (auto* event = std::get_if<AttemptEvent>(&message)) queue.report(link.get(), *event);
  }

  void refuse(const Error& error) {
    if (error.code != ErrorCode::failed_precondition) return end(to_grpc(error));
    const v1::Hello& hello = incoming_.hello();
    if (other_protocol_) other_protocol_({static_cast<pid_t>(hello.pid()), hello.start_ticks(), hello.boot_id()});
    end({grpc::StatusCode::UNIMPLEMENTED, error.message});
  }

  // Nothing more is read.
  void end(grpc::Status status) {
    if (!status.ok()) log::warn("a worker's session is refused: {}", status.error_message());
    loop_.post([link = link_](Queue& queue) { queue.disconnected(link.get()); });
    std::lock_guard lock(mutex_);
    if (!ended_) finish(std::move(status));
  }

  // The stream is finished at once, or when the write under way is done. Under the lock.
  void finish(grpc::Status status) {
    ended_ = true;
    status_ = std::move(status);
    if (outgoing_.empty()) Finish(status_);
  }

  QueueLoop& loop_;
  const WorkerService::OtherProtocol& other_protocol_;
  grpc::CallbackServerContext* context_;
  std::shared_ptr<SessionLink> link_;
  v1::WorkerMessage incoming_;  // of the read under way
  bool greeted_ = false;        // touched by reads only
  std::mutex mutex_;
  std::deque<v1::DaemonMessage> outgoing_;  // the front one is being written
  bool ended_ = false;
  grpc::Status status_;
};

void SessionLink::send(DaemonMessage message) {
  std::lock_guard lock(mutex_);
  if (session_) session_->send(message);
}

void SessionLink::close(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (session_) session_->close(why);
}

}  // namespace

Reactor* WorkerService::Session(grpc::CallbackServerContext* context) {
  return new class Session(loop_, other_protocol_, context);
}

}  // namespace assay
