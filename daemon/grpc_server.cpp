#include "daemon/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include <chrono>

#include "base/limits.h"
#include "daemon/listener.h"

namespace assay {
namespace {

// Every follower of the feed holds a thread of the synchronous server; the rest is for short calls, which queue beyond.
constexpr int short_call_threads = 16;
constexpr std::chrono::milliseconds farewell(500);

class SocketServer final : public GrpcServer {
 public:
  SocketServer(std::unique_ptr<grpc::Server> server) : server_(std::move(server)) {}
  ~SocketServer() override {
    listener_.reset();
    server_->Shutdown(std::chrono::system_clock::now() + farewell);
    server_->Wait();
  }
  Status listen(const std::string& socket) {
    auto listener = Listener::open(socket, [this](int fd) { grpc::AddInsecureChannelFromFd(server_.get(), fd); });
    if (!listener.ok()) return listener.error();
    listener_ = std::move(listener).value();
    return {};
  }

 private:
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace

Result<std::unique_ptr<GrpcServer>> GrpcServer::start(const std::string& socket,
                                                      const std::vector<grpc::Service*>& services) {
  grpc::EnableDefaultHealthCheckService(true);
  static std::once_flag reflection;
  std::call_once(reflection, [] { grpc::reflection::InitProtoReflectionServerBuilderPlugin(); });
  grpc::ServerBuilder builder;
  for (grpc::Service* service : services) builder.RegisterService(service);
  builder.SetMaxReceiveMessageSize(limits::message_bytes);
  builder.SetMaxSendMessageSize(limits::message_bytes);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder.SetResourceQuota(grpc::ResourceQuota("assayd").SetMaxThreads(limits::watch_streams + short_call_threads));
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return Error{ErrorCode::internal, "the gRPC server cannot be started"};
  auto serving = std::make_unique<SocketServer>(std::move(server));
  ASSAY_TRY(serving->listen(socket));
  return std::unique_ptr<GrpcServer>(std::move(serving));
}

}  // namespace assay
