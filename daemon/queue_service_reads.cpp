// QueueService: what only reads. The stores are asked directly; they are thread-safe.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <span>

#include "base/limits.h"
#include "base/text.h"
#include "base/utf8.h"
#include "daemon/grpc_status.h"
#include "daemon/log_tail.h"
#include "daemon/proto_rows.h"
#include "daemon/queue_service.h"
#include "report/load.h"
#include "report/report.h"
#include "wire/step_columns.h"

namespace assay {
namespace {

// A value takes at most 10 bytes on the wire (8 as a float, 1 to 10 as an integer).
constexpr int64_t steps_per_answer = static_cast<int64_t>(limits::change_answer_bytes / (10 * std::size(step_fields)));
// A report's files are one answer, too, with the same room for the fields around them.
constexpr size_t report_bytes = limits::change_answer_bytes;

Result<int64_t> connected_workers(RunStore& runs) {
  ASSAY_ASSIGN(const auto workers, runs.list_workers());
  return static_cast<int64_t>(std::count_if(workers.begin(), workers.end(),
                                            [](const WorkerRow& w) { return w.state == WorkerState::connected; }));
}

// Counted from the list where it is whole, so that both say the same.
Result<RunCounts> counts_of(const std::vector<ListedRun>& runs) {
  RunCounts counts;
  for (const ListedRun& listed : runs) ++counts.by_state[static_cast<size_t>(listed.run.state)];
  return counts;
}

void fill(google::protobuf::Map<std::string, int64_t>& out, const RunCounts& counts) {
  for (size_t i = 0; i < counts.by_state.size(); ++i)
    if (counts.by_state[i] > 0) out[std::string(to_string(static_cast<RunState>(i)))] = counts.by_state[i];
}

Result<bool> tag_is_shared(RunStore& runs, const std::string& tag) {
  ASSAY_ASSIGN(const auto experiments, runs.list_experiments(0));
  return std::count_if(experiments.begin(), experiments.end(), [&](const auto& e) { return e.tag == tag; }) > 1;
}

// The name, within its experiment, of the run that a report compares with; empty stays empty.
Result<std::string> baseline_name(RunStore& runs, int64_t experiment_id, const std::string& baseline) {
  if (baseline.empty()) return baseline;
  ASSAY_ASSIGN(const auto found, runs.list_runs({.names = {baseline}, .experiment_id = experiment_id}));
  return found.front().run.name;
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

Status QueueService::stream_list(const v1::ListRunsRequest& request, grpc::ServerWriter<v1::ListRunsResponse>* out) {
  ASSAY_ASSIGN(const Selection selection, to_selection(request.selector()));
  RunFilter filter = filter_of(selection);
  filter.limit = std::max<int64_t>(0, request.limit());
  v1::ListRunsResponse message;
  ASSAY_ASSIGN(const int64_t last_event_id, context_.runs.last_event_id());
  message.set_last_event_id(last_event_id);
  ASSAY_ASSIGN(const std::vector<ListedRun> runs, context_.runs.list_runs(filter));
  ASSAY_ASSIGN(const RunCounts counts, filter.limit > 0 ? context_.runs.count_runs(filter) : counts_of(runs));
  fill(*message.mutable_by_state(), counts);
  message.set_total(counts.total());
  ASSAY_ASSIGN(const bool held, context_.runs.queue_held());
  message.set_queue_held(held);
  std::vector<int64_t> ids;
  for (const ListedRun& listed : runs)
    if (listed.latest) ids.push_back(listed.latest->id);
  ASSAY_ASSIGN(const std::vector<AttemptSummary> summaries, context_.metrics.summaries(ids));
  size_t next = 0, bytes = 0;
  for (const ListedRun& listed : runs) {
    v1::Run* run = message.add_runs();
    fill(*run, listed);
    if (listed.latest) fill(*run->mutable_latest(), *listed.latest, summaries[next++]);
    bytes += run->ByteSizeLong();
    if (bytes < limits::list_message_bytes) continue;
    if (!out->Write(message)) return {};  // the client left
    message.Clear();
    bytes = 0;
  }
  out->Write(message);
  return {};
}

grpc::Status QueueService::ListRuns(Call*, const v1::ListRunsRequest* request,
                                    grpc::ServerWriter<v1::ListRunsResponse>* out) {
  return to_grpc(stream_list(*request, out));
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
  response->set_not_started(to_utf8(*not_started));
  if (!attempts->empty()) *response->mutable_latest() = response->attempts(response->attempts_size() - 1);
  return grpc::Status::OK;
}

Result<AttemptRow> QueueService::attempt_of(const ListedRun& run, int64_t n) {
  ASSAY_ASSIGN(auto attempts, context_.runs.attempts_of(run.run.id));
  if (attempts.empty()) return Error{ErrorCode::not_found, fmt::format("{} has not been started yet", run.run.name)};
  if (n == 0) return std::move(attempts.back());
  for (AttemptRow& attempt : attempts)
    if (attempt.n == n) return std::move(attempt);
  return Error{ErrorCode::not_found,
               fmt::format("{} has {}, no attempt {}", run.run.name, plural(std::ssize(attempts), "attempt"), n)};
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
  const size_t sent = std::min(steps->size(), static_cast<size_t>(limit));
  to_proto(std::span(*steps).first(sent), *response->mutable_columns());
  return grpc::Status::OK;
}

grpc::Status QueueService::GetReport(Call*, const v1::GetReportRequest* request, v1::GetReportResponse* response) {
  const auto input =
      load_report(context_.runs, context_.metrics, request->tag(), context_.clock.unix_ms(), context_.home);
  if (!input.ok()) return to_grpc(input.error());
  const auto baseline = baseline_name(context_.runs, input->experiment.id, request->baseline());
  if (!baseline.ok()) return to_grpc(baseline.error());
  auto files = build_report(*input, *baseline);
  if (!files.ok()) return to_grpc(files.error());
  const auto shared = tag_is_shared(context_.runs, input->experiment.tag);
  if (!shared.ok()) return to_grpc(shared.error());
  response->set_tag_shared(*shared);
  response->set_experiment(input->experiment.name);
  response->set_tag(input->experiment.tag);
  // steps.csv grows without bound. Where it would not fit into a message it is left out, and the client makes it from
  // QueryMetrics, page by page.
  const size_t without_steps = files->report_md.size() + files->summary_csv.size();
  if (without_steps > report_bytes)
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
  if (without_steps + files->steps_csv.size() <= report_bytes) add("steps.csv", files->steps_csv);
  return grpc::Status::OK;
}

grpc::Status QueueService::ListDevices(Call*, const v1::ListDevicesRequest*, v1::ListDevicesResponse* response) {
  const auto devices = context_.runs.list_devices();
  if (!devices.ok()) return to_grpc(devices.error());
  const auto workers = context_.runs.list_workers();
  if (!workers.ok()) return to_grpc(workers.error());
  std::set<std::string> connected;
  for (const WorkerRow& worker : *workers)
    if (worker.state == WorkerState::connected) connected.insert(worker.id);
  for (const DeviceListing& listed : *devices)
    fill(*response->add_devices(), listed, connected.contains(listed.device.worker_id));
  return grpc::Status::OK;
}

}  // namespace assay
