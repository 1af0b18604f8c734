// WorkerService over gRPC: one bidirectional stream per worker, converted and handed to the queue's loop. Callback API:
// a stream costs no thread, and neither side of it ever blocks the loop. A session ends with the reason wherever its
// worker says what it must not: an unknown word, a second hello, another protocol.
#pragma once

#include <functional>

#include "base/process.h"
#include "daemon/queue_loop.h"
#include "proto/worker.grpc.pb.h"

namespace assay {

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  // Told of a worker that speaks another protocol than this daemon, whose session is refused. Called on any thread.
  using OtherProtocol = std::function<void(const ProcessIdentity& worker)>;
  explicit WorkerService(QueueLoop& loop, OtherProtocol other_protocol = {})
      : loop_(loop), other_protocol_(std::move(other_protocol)) {}
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::DaemonMessage>* Session(grpc::CallbackServerContext* context) override;

 private:
  QueueLoop& loop_;
  const OtherProtocol other_protocol_;
};

}  // namespace assay
