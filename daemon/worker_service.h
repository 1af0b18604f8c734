// WorkerService over gRPC: one bidirectional stream per worker, converted and handed to the queue's loop. Callback API:
// a stream costs no thread, and neither side of it ever blocks the loop.
#pragma once

#include "daemon/queue_loop.h"
#include "proto/worker.grpc.pb.h"

namespace assay {

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerService(QueueLoop& loop) : loop_(loop) {}
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::DaemonMessage>* Session(grpc::CallbackServerContext* context) override;

 private:
  QueueLoop& loop_;
};

}  // namespace assay
