// QueueService: plan, enqueue and the changes. Reads are in queue_service_reads.cpp, the feed in
// queue_service_watch.cpp.
#include "daemon/queue_service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <set>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/grpc_status.h"
#include "daemon/preflight.h"
#include "daemon/proto_rows.h"
#include "spec/spec_errors.h"

namespace assay {
namespace {

Error all_of(const std::vector<std::string>& problems) {
  std::string text;
  const size_t shown = std::min(problems.size(), limits::spec_errors_shown);
  for (size_t i = 0; i < shown; ++i) text += (i ? "\n" : "") + problems[i];
  if (shown < problems.size()) text += fmt::format("\n... and {} more", problems.size() - shown);
  return Error{ErrorCode::invalid_argument, text};
}

std::vector<std::string> messages_of(const std::vector<SpecError>& errors) {
  std::vector<std::string> messages;
  for (const SpecError& error : errors) messages.push_back(error.to_string());
  return messages;
}

Status check_tag(const std::string& tag) {
  if (tag.empty()) return {};
  const auto problem = name_problem(tag);
  if (problem) return Error{ErrorCode::invalid_argument, fmt::format("the tag {}", *problem)};
  return {};
}

int64_t host_memory_bytes() {
  return static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
}

void fill(v1::PlannedRun& out, const PlannedRun& run, const RunForecast& forecast) {
  out.set_name(run.name);
  out.set_cell_key(run.cell_key);
  out.set_repeat(run.repeat);
  out.set_precision(std::string(to_string(run.config.precision)));
  out.set_execution(std::string(to_string(run.config.execution)));
  out.set_steps(run.config.train.steps);
  out.set_total_batch_tokens(run.config.train.total_batch_tokens);
  out.set_devices(run.config.devices);
  out.set_parameters(forecast.parameters);
  out.set_peak_mem_mib(forecast.peak_mem_mib);
  out.set_mflop_per_token(forecast.mflop_per_token);
  out.set_estimated_seconds(forecast.estimated_seconds);
  out.set_fits(forecast.problem.empty());
  out.set_problem(forecast.problem);
}

}  // namespace

Result<std::vector<RunForecast>> QueueService::forecasts(const ExperimentSpec& spec) {
  PreflightContext preflight;
  ASSAY_ASSIGN(preflight.devices, context_.runs.list_devices());
  preflight.host_memory_bytes = host_memory_bytes();
  preflight.allow_faults = context_.allow_faults;
  preflight.step_ms = measured_step_times(context_.runs, context_.metrics);
  return forecast(spec, preflight);
}

grpc::Status QueueService::Plan(Call*, const v1::PlanRequest* request, v1::PlanResponse* response) {
  const SpecResult parsed = parse_experiment(request->spec_text(), request->spec_file(), request->base_folder());
  for (const std::string& message : messages_of(parsed.errors)) response->add_errors(message);
  if (!parsed.ok()) return grpc::Status::OK;
  response->set_experiment(parsed.spec.experiment);
  const auto checked = forecasts(parsed.spec);
  if (!checked.ok()) return to_grpc(checked.error());

  const std::string tag = request->tag().empty() ? parsed.spec.tag : request->tag();
  if (Status named = check_tag(tag); !named.ok()) return to_grpc(named);
  std::set<std::pair<std::string, int>> queued;
  if (!tag.empty()) {
    RunFilter filter;
    filter.tag = parsed.spec.experiment + "/" + tag;  // another experiment may have the same tag
    const auto runs = context_.runs.list_runs(filter);
    if (!runs.ok() && runs.error().code != ErrorCode::not_found) return to_grpc(runs.error());
    if (runs.ok())
      for (const ListedRun& listed : *runs)
        if (listed.experiment == parsed.spec.experiment) queued.emplace(listed.run.cell_key, listed.run.repeat);
  }
  for (size_t i = 0; i < parsed.spec.runs.size(); ++i) {
    v1::PlannedRun* run = response->add_runs();
    fill(*run, parsed.spec.runs[i], (*checked)[i]);
    run->set_already_queued(queued.contains({run->cell_key(), run->repeat()}));
  }
  return grpc::Status::OK;
}

grpc::Status QueueService::Enqueue(Call*, const v1::EnqueueRequest* request, v1::EnqueueResponse* response) {
  const SpecResult parsed = parse_experiment(request->spec_text(), request->spec_file(), request->base_folder());
  if (!parsed.ok()) return to_grpc(all_of(messages_of(parsed.errors)));
  std::string tag = request->tag().empty() ? parsed.spec.tag : request->tag();
  if (Status named = check_tag(tag); !named.ok()) return to_grpc(named);
  if (tag.empty()) tag = format_tag(context_.clock.unix_ms());

  const auto checked = forecasts(parsed.spec);
  if (!checked.ok()) return to_grpc(checked.error());
  std::vector<std::string> problems;
  for (size_t i = 0; i < checked->size(); ++i)
    if (!(*checked)[i].problem.empty())
      problems.push_back(
          fmt::format("{}: {}: {}", request->spec_file(), parsed.spec.runs[i].name, (*checked)[i].problem));
  if (!problems.empty()) return to_grpc(all_of(problems));

  const auto added = context_.loop.call<EnqueueResult>(
      [&](Queue& queue) { return queue.enqueue(parsed.spec, tag, request->request_id()); });
  if (!added.ok()) return to_grpc(added.error());
  response->set_experiment(added->experiment);
  response->set_tag(added->tag);
  response->set_already_there(added->already_there);
  for (const std::string& name : added->added) response->add_added(name);
  return grpc::Status::OK;
}

// --- changes ---------------------------------------------------------------------------------------------------------

namespace {

using Change = std::function<Result<ChangeAnswer>(Queue&, const Selection&)>;

grpc::Status change(QueueLoop& loop, const v1::RunSelector& selector, v1::ChangeResponse* response, const Change& f) {
  const auto selection = to_selection(selector);
  if (!selection.ok()) return to_grpc(selection.error());
  const auto answer = loop.call<ChangeAnswer>([&](Queue& queue) { return f(queue, *selection); });
  if (!answer.ok()) return to_grpc(answer.error());
  fill(*response, *answer);
  return grpc::Status::OK;
}

}  // namespace

grpc::Status QueueService::Retry(Call*, const v1::RetryRequest* request, v1::ChangeResponse* response) {
  return change(context_.loop, request->selector(), response, [&](Queue& queue, const Selection& selection) {
    return queue.retry(selection, request->failed(), request->request_id());
  });
}

grpc::Status QueueService::Cancel(Call*, const v1::CancelRequest* request, v1::ChangeResponse* response) {
  return change(context_.loop, request->selector(), response, [&](Queue& queue, const Selection& selection) {
    return queue.cancel(selection, request->all(), request->request_id());
  });
}

grpc::Status QueueService::Hold(Call*, const v1::HoldRequest* request, v1::ChangeResponse* response) {
  return change(context_.loop, request->selector(), response,
                [&](Queue& queue, const Selection& selection) { return queue.hold(selection, request->request_id()); });
}

grpc::Status QueueService::Release(Call*, const v1::HoldRequest* request, v1::ChangeResponse* response) {
  return change(context_.loop, request->selector(), response, [&](Queue& queue, const Selection& selection) {
    return queue.release(selection, request->request_id());
  });
}

grpc::Status QueueService::Shutdown(Call*, const v1::ShutdownRequest* request, v1::ShutdownResponse*) {
  log::info("asked to stop{}", request->stop_workers() ? ", workers and runs with it" : "");
  context_.shut_down(request->stop_workers());
  return grpc::Status::OK;
}

}  // namespace assay
