// The daemon as the command line sees it: one blocking call per request, failures as Error. gRPC stays in client.cpp.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "proto/queue.pb.h"

namespace assay {

class Client {
 public:
  // Fails with `unavailable` if nothing can be listening at the home's socket. `home` also goes into messages.
  static Result<Client> connect(const std::string& home);
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // Every call may wait up to limits::rpc_deadline_ms; info() takes its own deadline because `up` polls with it.
  Result<v1::InfoResponse> info(int64_t deadline_ms);
  Result<v1::PlanResponse> plan(const v1::PlanRequest&);
  Result<v1::EnqueueResponse> enqueue(const v1::EnqueueRequest&);
  // Whole, however many messages it takes: an answer that lacks runs is an error.
  Result<v1::ListRunsResponse> list_runs(const v1::ListRunsRequest&);
  Result<v1::Run> get_run(const v1::GetRunRequest&);
  Result<v1::ChangeResponse> retry(const v1::RetryRequest&);
  Result<v1::ChangeResponse> cancel(const v1::CancelRequest&);
  Result<v1::ChangeResponse> hold(const v1::HoldRequest&);
  Result<v1::ChangeResponse> release(const v1::HoldRequest&);
  Result<v1::TailLogResponse> tail_log(const v1::TailLogRequest&);
  Result<v1::QueryMetricsResponse> query_metrics(const v1::QueryMetricsRequest&);
  Result<v1::GetReportResponse> get_report(const v1::GetReportRequest&);
  Result<v1::ListDevicesResponse> list_devices();
  // Events with an id above `from`, oldest first, of the experiment `tag` or of all for ""; ends after the last one
  // there is now.
  Status events_since(int64_t from, const std::string& tag, const std::function<void(const v1::Event&)>& each);
  Result<v1::ShutdownResponse> shutdown(bool stop_workers);

 private:
  struct State;
  explicit Client(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

// A random (version 4) UUID: the request id of a mutation.
std::string new_request_id();

}  // namespace assay
