// Messages of proto/worker.proto as the structs of daemon/worker_link.h, and back.
#pragma once

#include <variant>

#include "base/status.h"
#include "daemon/worker_link.h"
#include "proto/worker.pb.h"

namespace assay {

using WorkerInput = std::variant<WorkerGreeting, HeartbeatReport, StepReport, AttemptReport>;

// Errors (invalid_argument) name what is wrong with a message; its sender is not a worker of ours.
Result<WorkerInput> to_input(const v1::WorkerMessage& message);
v1::DaemonMessage to_message(const WorkerOrder& order);

}  // namespace assay
