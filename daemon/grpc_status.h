// Error -> gRPC status, at the service boundary only.
#pragma once

#include <grpcpp/support/status.h>

#include "base/status.h"

namespace assay {

grpc::Status to_grpc(const Error& error);
inline grpc::Status to_grpc(const Status& status) {
  return status.ok() ? grpc::Status::OK : to_grpc(status.error());
}

}  // namespace assay
