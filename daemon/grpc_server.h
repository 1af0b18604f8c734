// The gRPC server of the daemon on its Unix socket: both services, health, reflection; message size and threads
// bounded.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace grpc {
class Service;
}

namespace assay {

class GrpcServer {
 public:
  // Serves at once. The services must outlive it.
  static Result<std::unique_ptr<GrpcServer>> start(const std::string& socket,
                                                   const std::vector<grpc::Service*>& services);
  // Accepts nothing more, ends open calls after a moment, removes the socket.
  virtual ~GrpcServer() = default;

 protected:
  GrpcServer() = default;
};

}  // namespace assay
