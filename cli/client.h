// The daemon as the command line sees it: one blocking call per request, failures as Error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>

#include "base/limits.h"
#include "base/status.h"
#include "proto/queue.grpc.pb.h"

namespace assay {

// What can be asked, as proto/queue.proto has it: &Rpc::Hold.
using Rpc = v1::QueueService::StubInterface;
template <class Request, class Response>
using RpcMethod = grpc::Status (Rpc::*)(grpc::ClientContext*, const Request&, Response*);

class Client {
 public:
  // Fails with `unavailable` if nothing can be listening at the home's socket. `home` also goes into messages.
  static Result<Client> connect(const std::string& home);
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // Whatever is answered in one message: client.call(&Rpc::GetRun, request).
  template <class Request, class Response>
  Result<Response> call(RpcMethod<Request, Response> method, const std::type_identity_t<Request>& request,
                        int64_t deadline_ms = limits::rpc_deadline_ms);
  // Whole, however many messages it takes: an answer that lacks runs is an error.
  Result<v1::ListRunsResponse> list_runs(const v1::ListRunsRequest&);
  // Events with an id above `from`, oldest first, of the experiment `tag` or of all for ""; ends after the last one
  // there is now.
  Status events_since(int64_t from, const std::string& tag, const std::function<void(const v1::Event&)>& each);

 private:
  struct State;
  explicit Client(std::unique_ptr<State>);
  Status ask(const google::protobuf::Message& request, int64_t deadline_ms,
             const std::function<grpc::Status(Rpc&, grpc::ClientContext*)>& rpc);

  std::unique_ptr<State> state_;
};

template <class Request, class Response>
Result<Response> Client::call(RpcMethod<Request, Response> method, const std::type_identity_t<Request>& request,
                              int64_t deadline_ms) {
  Response response;
  ASSAY_TRY(ask(request, deadline_ms,
                [&](Rpc& rpc, grpc::ClientContext* context) { return (rpc.*method)(context, request, &response); }));
  return response;
}

// A random (version 4) UUID: the request id of a mutation.
std::string new_request_id();

}  // namespace assay
