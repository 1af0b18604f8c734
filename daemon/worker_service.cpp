#include "daemon/worker_service.h"

#include <deque>
#include <memory>
#include <mutex>

#include "base/log.h"
#include "daemon/grpc_status.h"
#include "daemon/worker_messages.h"

namespace assay {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::WorkerMessage, v1::DaemonMessage>;

class Session;

// What the queue holds of a stream. It may outlive the stream: then orders go nowhere, and the worker's next greeting
// makes them good.
class SessionLink final : public WorkerLink {
 public:
  explicit SessionLink(Session* session) : session_(session) {}
  void send(WorkerOrder order) override;
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
  Session(QueueLoop& loop, grpc::CallbackServerContext* context)
      : loop_(loop), context_(context), link_(std::make_shared<SessionLink>(this)) {
    StartRead(&incoming_);
  }

  void send(const WorkerOrder& order) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    outgoing_.push_back(to_message(order));
    if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
  }

  void close(const std::string& why) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    log::warn("a worker's session is closed: {}", why);
    context_->TryCancel();  // the pending read fails, which ends the stream
  }

  void OnReadDone(bool ok) override {
    if (!ok) return end(grpc::Status::OK);
    auto input = to_input(incoming_);
    if (!input.ok()) return end(to_grpc(input.error()));
    if (std::holds_alternative<WorkerGreeting>(*input) == greeted_)
      return end(
          {grpc::StatusCode::FAILED_PRECONDITION, greeted_ ? "a second hello" : "the first message must be a hello"});
    greeted_ = true;
    loop_.post(
        [link = link_, input = *std::move(input)](Queue& queue) mutable { take(queue, link, std::move(input)); });
    StartRead(&incoming_);
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
  static void take(Queue& queue, const std::shared_ptr<SessionLink>& link, WorkerInput input) {
    if (auto* greeting = std::get_if<WorkerGreeting>(&input)) queue.greet(link, *greeting);
    if (auto* heartbeat = std::get_if<HeartbeatReport>(&input)) queue.heartbeat(link.get(), *heartbeat);
    if (auto* steps = std::get_if<StepReport>(&input)) queue.steps(link.get(), *steps);
    if (auto* report = std::get_if<AttemptReport>(&input)) queue.report(link.get(), *report);
  }

  // Nothing more is read. The stream is finished at once, or when the write under way is done.
  void end(grpc::Status status) {
    if (!status.ok()) log::warn("a worker's session is refused: {}", status.error_message());
    loop_.post([link = link_](Queue& queue) { queue.disconnected(link.get()); });
    std::lock_guard lock(mutex_);
    ended_ = true;
    status_ = std::move(status);
    if (outgoing_.empty()) Finish(status_);
  }

  QueueLoop& loop_;
  grpc::CallbackServerContext* context_;
  std::shared_ptr<SessionLink> link_;
  v1::WorkerMessage incoming_;  // of the read under way
  bool greeted_ = false;        // touched by reads only
  std::mutex mutex_;
  std::deque<v1::DaemonMessage> outgoing_;  // the front one is being written
  bool ended_ = false;
  grpc::Status status_;
};

void SessionLink::send(WorkerOrder order) {
  std::lock_guard lock(mutex_);
  if (session_) session_->send(order);
}

void SessionLink::close(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (session_) session_->close(why);
}

}  // namespace

Reactor* WorkerService::Session(grpc::CallbackServerContext* context) {
  return new class Session(loop_, context);
}

}  // namespace assay
