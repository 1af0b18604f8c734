// QueueService: what only reads. The stores are asked directly; they are thread-safe.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "base/limits.h"
#include "daemon/grpc_status.h"
#include "daemon/log_tail.h"
#include "daemon/proto_rows.h"
#include "daemon/queue_service.h"
#include "report/load.h"
#include "report/report.h"

namespace assay {
namespace {

// A step takes some 120 bytes on the wire: 100,000 of them stay well below limits::message_bytes.
constexpr int64_t steps_per_answer = 100'000;
// Room for the fields of the answer around its list.
constexpr size_t list_bytes = limits::message_bytes - 65'536;

Result<int64_t> connected_workers(RunStore& runs) {
  ASSAY_ASSIGN(const auto workers, runs.list_workers());
  return static_cast<int64_t>(
      std::count_if(workers.begin(), workers.end(), [](const WorkerRow& w) { return w.state == "connected"; }));
}

}  // namespace

grpc::Status QueueService::Info(Call*, const v1::InfoRequest*, v1::InfoResponse* response) {
  const auto held = context_.runs.queue_held();
  if (!held.ok()) return to_grpc(held.error());
  const auto workers = connected_workers(context_.runs);
  if (!workers.ok()) return to_grpc(workers.error());
  response->set_version(context_.version);
  response->set_home(context_.home);
  response->set_pid(::getpid());
  response->set_started_at(context_.started_at);
  response->set_fault_injection(context_.allow_faults);
  response->set_queue_held(*held);
  response->set_workers_connected(static_cast<int32_t>(*workers));
  response->set_unix_ms(context_.clock.unix_ms());
  return grpc::Status::OK;
}

grpc::Status QueueService::ListRuns(Call*, const v1::ListRunsRequest* request, v1::ListRunsResponse* response) {
  const auto selection = to_selection(request->selector());
  if (!selection.ok()) return to_grpc(selection.error());
  RunFilter filter;
  filter.names = selection->names;
  filter.tag = selection->tag;
  filter.states = selection->states;
  filter.limit = std::max<int64_t>(0, request->limit());
  const auto runs = context_.runs.list_runs(filter);
  if (!runs.ok()) return to_grpc(runs.error());
  const auto counts = context_.runs.count_runs(filter);
  if (!counts.ok()) return to_grpc(counts.error());
  const auto held = context_.runs.queue_held();
  if (!held.ok()) return to_grpc(held.error());
  std::vector<int64_t> ids;
  for (const ListedRun& listed : *runs)
    if (listed.latest) ids.push_back(listed.latest->id);
  const auto summaries = context_.metrics.summaries(ids);
  if (!summaries.ok()) return to_grpc(summaries.error());

  response->set_total(counts->total());
  response->set_queue_held(*held);
  size_t next = 0, bytes = 0;
  for (const ListedRun& listed : *runs) {
    v1::Run* run = response->add_runs();
    fill(*run, listed);
    if (listed.latest) fill(*run->mutable_latest(), *listed.latest, (*summaries)[next++]);
    // What does not fit one message is left out; `total` tells.
    if ((bytes += run->ByteSizeLong() + 8) > list_bytes) {
      response->mutable_runs()->RemoveLast();
      break;
    }
  }
  return grpc::Status::OK;
}

grpc::Status QueueService::GetRun(Call*, const v1::GetRunRequest* request, v1::Run* response) {
  const auto listed = context_.runs.get_run(request->name());
  if (!listed.ok()) return to_grpc(listed.error());
  const auto attempts = context_.runs.attempts_of(listed->run.id);
  if (!attempts.ok()) return to_grpc(attempts.error());
  fill(*response, *listed);
  response->set_config_toml(listed->run.config_toml);
  for (const AttemptRow& attempt : *attempts) {
    const auto summary = context_.metrics.summary(attempt.id);
    if (!summary.ok()) return to_grpc(summary.error());
    fill(*response->add_attempts(), attempt, *summary);
  }
  const auto not_started = context_.runs.why_not_started(listed->run.id);
  if (!not_started.ok()) return to_grpc(not_started.error());
  response->set_not_started(*not_started);
  if (!attempts->empty()) *response->mutable_latest() = response->attempts(response->attempts_size() - 1);
  return grpc::Status::OK;
}

Result<AttemptRow> QueueService::attempt_of(const ListedRun& run, int64_t n) {
  ASSAY_ASSIGN(auto attempts, context_.runs.attempts_of(run.run.id));
  if (attempts.empty()) return Error{ErrorCode::not_found, fmt::format("{} has not been started yet", run.run.name)};
  if (n == 0) return std::move(attempts.back());
  for (AttemptRow& attempt : attempts)
    if (attempt.n == n) return std::move(attempt);
  return Error{ErrorCode::not_found, fmt::format("{} has {} attempt{}, no attempt {}", run.run.name, attempts.size(),
                                                 attempts.size() == 1 ? "" : "s", n)};
}

grpc::Status QueueService::TailLog(Call*, const v1::TailLogRequest* request, v1::TailLogResponse* response) {
  const auto run = context_.runs.get_run(request->name());
  if (!run.ok()) return to_grpc(run.error());
  const auto attempt = attempt_of(*run, request->attempt());
  if (!attempt.ok()) return to_grpc(attempt.error());
  response->set_attempt(attempt->n);
  response->set_live(attempt->state != AttemptState::ended);
  if (attempt->log_path.empty()) return grpc::Status::OK;  // its trainer has not been started
  auto chunk = read_log(context_.home, attempt->log_path, request->offset(), request->max_bytes());
  if (!chunk.ok()) return to_grpc(chunk.error());
  response->set_data(std::move(chunk->data));
  response->set_next_offset(chunk->next_offset);
  response->set_size(chunk->size);
  return grpc::Status::OK;
}

grpc::Status QueueService::QueryMetrics(Call*, const v1::QueryMetricsRequest* request,
                                        v1::QueryMetricsResponse* response) {
  const auto run = context_.runs.get_run(request->name());
  if (!run.ok()) return to_grpc(run.error());
  auto attempt = attempt_of(*run, request->attempt());
  if (!attempt.ok()) return to_grpc(attempt.error());
  // The newest attempt may not have made a step yet.
  for (int64_t n = attempt->n; request->attempt() == 0 && n > 1; --n) {
    const auto summary = context_.metrics.summary(attempt->id);
    if (!summary.ok()) return to_grpc(summary.error());
    if (summary->steps_observed > 0) break;
    attempt = attempt_of(*run, n - 1);
    if (!attempt.ok()) return to_grpc(attempt.error());
  }
  const int64_t asked = request->limit() > 0 ? request->limit() : steps_per_answer;
  const int64_t limit = std::min(asked, steps_per_answer);
  const auto steps = context_.metrics.query(attempt->id, request->from_step(), limit + 1);
  if (!steps.ok()) return to_grpc(steps.error());
  response->set_attempt(attempt->n);
  response->set_more(static_cast<int64_t>(steps->size()) > limit);
  for (size_t i = 0; i < steps->size() && i < static_cast<size_t>(limit); ++i)
    fill(*response->add_steps(), (*steps)[i]);
  return grpc::Status::OK;
}

grpc::Status QueueService::GetReport(Call*, const v1::GetReportRequest* request, v1::GetReportResponse* response) {
  const auto input =
      load_report(context_.runs, context_.metrics, request->tag(), context_.clock.unix_ms(), context_.home);
  if (!input.ok()) return to_grpc(input.error());
  auto files = build_report(*input, request->baseline());
  if (!files.ok()) return to_grpc(files.error());
  response->set_experiment(input->experiment.name);
  response->set_tag(input->experiment.tag);
  // steps.csv grows without bound. Where it would not fit into a message it is left out, and the client makes it from
  // QueryMetrics, page by page.
  const size_t without_steps = files->report_md.size() + files->summary_csv.size();
  if (without_steps > list_bytes)
    return to_grpc(Error{ErrorCode::resource_exhausted,
                         fmt::format("the report of {} takes {} bytes, more than a message of {}; use `assay export`",
                                     input->experiment.tag, without_steps, limits::message_bytes)});
  const auto add = [&](const char* name, std::string& content) {
    v1::ReportFile* file = response->add_files();
    file->set_name(name);
    file->set_content(std::move(content));
  };
  add("report.md", files->report_md);
  add("summary.csv", files->summary_csv);
  if (without_steps + files->steps_csv.size() <= list_bytes) add("steps.csv", files->steps_csv);
  return grpc::Status::OK;
}

grpc::Status QueueService::ListDevices(Call*, const v1::ListDevicesRequest*, v1::ListDevicesResponse* response) {
  const auto devices = context_.runs.list_devices();
  if (!devices.ok()) return to_grpc(devices.error());
  const auto workers = context_.runs.list_workers();
  if (!workers.ok()) return to_grpc(workers.error());
  std::set<std::string> connected;
  for (const WorkerRow& worker : *workers)
    if (worker.state == "connected") connected.insert(worker.id);
  for (const DeviceListing& listed : *devices)
    fill(*response->add_devices(), listed, connected.contains(listed.device.worker_id));
  return grpc::Status::OK;
}

}  // namespace assay
