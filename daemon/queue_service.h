// QueueService over gRPC: converts, checks what comes from outside, and asks the queue (changes) or the stores (reads).
// Synchronous: one thread a call; daemon/grpc_server.h bounds how many.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "base/clock.h"
#include "daemon/event_feed.h"
#include "daemon/queue_loop.h"
#include "db/metric_store.h"
#include "db/run_store.h"
#include "proto/queue.grpc.pb.h"

namespace assay {

struct QueueServiceContext {
  RunStore& runs;
  MetricStore& metrics;
  QueueLoop& loop;
  EventFeed& feed;
  const Clock& clock;
  std::string home;
  std::string version;
  bool allow_faults = false;
  int64_t started_at = 0;                            // unix ms
  std::function<void(bool stop_workers)> shut_down;  // must not block
};

class QueueService final : public v1::QueueService::Service {
 public:
  explicit QueueService(QueueServiceContext context) : context_(std::move(context)) {}

  using Call = grpc::ServerContext;
  grpc::Status Info(Call*, const v1::InfoRequest*, v1::InfoResponse*) override;
  grpc::Status Plan(Call*, const v1::PlanRequest*, v1::PlanResponse*) override;
  grpc::Status Enqueue(Call*, const v1::EnqueueRequest*, v1::EnqueueResponse*) override;
  grpc::Status ListRuns(Call*, const v1::ListRunsRequest*, grpc::ServerWriter<v1::ListRunsResponse>*) override;
  grpc::Status GetRun(Call*, const v1::GetRunRequest*, v1::Run*) override;
  grpc::Status TailLog(Call*, const v1::TailLogRequest*, v1::TailLogResponse*) override;
  grpc::Status QueryMetrics(Call*, const v1::QueryMetricsRequest*, v1::QueryMetricsResponse*) override;
  grpc::Status GetReport(Call*, const v1::GetReportRequest*, v1::GetReportResponse*) override;
  grpc::Status ListDevices(Call*, const v1::ListDevicesRequest*, v1::ListDevicesResponse*) override;
  grpc::Status Watch(Call*, const v1::WatchRequest*, grpc::ServerWriter<v1::Event>*) override;
  grpc::Status Shutdown(Call*, const v1::ShutdownRequest*, v1::ShutdownResponse*) override;

  // Changes of runs: all the same but for their verb.
  grpc::Status Retry(Call*, const v1::RetryRequest* asked, v1::ChangeResponse* answer) override {
    return change(RunVerb::retry, *asked, asked->failed(), *answer);
  }
  grpc::Status Cancel(Call*, const v1::CancelRequest* asked, v1::ChangeResponse* answer) override {
    return change(RunVerb::cancel, *asked, asked->all(), *answer);
  }
  grpc::Status Hold(Call*, const v1::HoldRequest* asked, v1::ChangeResponse* answer) override {
    return change(RunVerb::hold, *asked, false, *answer);
  }
  grpc::Status Release(Call*, const v1::HoldRequest* asked, v1::ChangeResponse* answer) override {
    return change(RunVerb::release, *asked, false, *answer);
  }

 private:
  template <class Request>
  grpc::Status change(RunVerb verb, const Request& asked, bool all, v1::ChangeResponse& answer) {
    return change_runs(verb, asked.selector(), all, asked.request_id(), answer);
  }
  grpc::Status change_runs(RunVerb verb, const v1::RunSelector& selector, bool all, const std::string& request_id,
                           v1::ChangeResponse& answer);
  Result<struct PreflightContext> preflight_context();
  // The attempt that a question is about: n, or the newest for 0.
  Result<AttemptRow> attempt_of(const ListedRun& run, int64_t n);
  Status stream_list(const v1::ListRunsRequest& request, grpc::ServerWriter<v1::ListRunsResponse>* out);
  Status stream_events(Call* call, const v1::WatchRequest& request, grpc::ServerWriter<v1::Event>* out);

  QueueServiceContext context_;
  std::atomic<int> watchers_ = 0;
};

}  // namespace assay
