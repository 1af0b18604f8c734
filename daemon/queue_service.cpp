// QueueService: plan, enqueue and the changes. Reads are in queue_service_reads.cpp, the feed in
// queue_service_watch.cpp.
#include "daemon/queue_service.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "daemon/grpc_status.h"
#include "daemon/preflight.h"
#include "daemon/proto_rows.h"
#include "spec/spec_errors.h"

namespace assay {
namespace {

Error all_of(const std::vector<std::string>& problems) {
  return Error{ErrorCode::invalid_argument, first_lines(problems, limits::spec_errors_shown)};
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
  out.set_device(std::string(to_string(forecast.device)));
  out.set_device_name(forecast.device_name);
  out.set_fits(!forecast.too_large);
  out.set_problem(forecast.problem);
  out.set_shortage(forecast.shortage);
}

// What keeps the spec from being queued, a line a run; nothing: it can be. A matter of size only if all of them are.
Status check_forecast(const ExperimentSpec& spec, const std::string& file, const Forecast& forecast) {
  std::vector<std::string> problems;
  bool all_too_large = true;
  for (size_t i = 0; i < forecast.runs.size(); ++i) {
    if (forecast.runs[i].problem.empty()) continue;
    all_too_large = all_too_large && forecast.runs[i].too_large;
    problems.push_back(fmt::format("{}: {}: {}", file, spec.runs[i].name, forecast.runs[i].problem));
  }
  if (problems.empty()) return {};
  Error error = all_of(problems);
  if (all_too_large) error.code = ErrorCode::resource_exhausted;
  return error;
}

}  // namespace

Result<PreflightContext> QueueService::preflight_context() {
  PreflightContext preflight;
  ASSAY_ASSIGN(preflight.devices, context_.runs.list_devices());
  preflight.host_memory = host_memory();
  preflight.allow_faults = context_.allow_faults;
  preflight.step_ms = measured_step_times(context_.runs, context_.metrics);
  return preflight;
}

grpc::Status QueueService::Plan(Call*, const v1::PlanRequest* request, v1::PlanResponse* response) {
  const SpecResult parsed = parse_experiment(request->spec_text(), request->spec_file(), request->base_folder());
  for (const std::string& message : messages_of(parsed.errors)) response->add_errors(message);
  if (!parsed.ok()) return grpc::Status::OK;
  const ExperimentSpec& spec = parsed.spec;
  response->set_experiment(spec.experiment);
  const std::string tag = request->tag().empty() ? spec.tag : request->tag();
  if (Status named = check_tag(tag); !named.ok()) return to_grpc(named);
  const auto context = preflight_context();
  if (!context.ok()) return to_grpc(context.error());
  const Forecast checked = forecast(spec, *context);
  // Without a tag it would be the time of enqueueing, under which there is nothing yet.
  const auto compared = context_.runs.compare_experiment(spec, tag);
  if (!compared.ok()) return to_grpc(compared.error());

  std::vector<size_t> added;
  for (size_t i = 0; i < spec.runs.size(); ++i) {
    v1::PlannedRun* run = response->add_runs();
    fill(*run, spec.runs[i], checked.runs[i]);
    const RunComparison& there = compared->runs[i];
    run->set_already_queued(there.is == RunComparison::Is::already_there);
    run->set_conflict(there.is == RunComparison::Is::another && run->problem().empty());
    if (run->conflict()) run->set_problem(conflict_text(spec, tag, there));
    if (there.is == RunComparison::Is::new_run && run->problem().empty()) added.push_back(i);
  }
  for (const std::string& warning : checked.warnings) response->add_warnings(warning);
  for (const std::string& change : compared->updated) response->add_updated(change);
  for (const std::string& note : checked.notes) response->add_notes(note);
  response->set_total_seconds(total_seconds(spec, checked, *context, added));
  return grpc::Status::OK;
}

grpc::Status QueueService::Enqueue(Call*, const v1::EnqueueRequest* request, v1::EnqueueResponse* response) {
  const SpecResult parsed = parse_experiment(request->spec_text(), request->spec_file(), request->base_folder());
  if (!parsed.ok()) return to_grpc(all_of(messages_of(parsed.errors)));
  const std::string tag = request->tag().empty() ? parsed.spec.tag : request->tag();
  if (Status named = check_tag(tag); !named.ok()) return to_grpc(named);

  const auto context = preflight_context();
  if (!context.ok()) return to_grpc(context.error());
  const Forecast checked = forecast(parsed.spec, *context);
  if (Status fine = check_forecast(parsed.spec, request->spec_file(), checked); !fine.ok()) return to_grpc(fine);

  const auto added = context_.loop.call<EnqueueResult>(
      [&](Queue& queue) { return queue.enqueue(parsed.spec, tag, request->request_id()); });
  if (!added.ok()) return to_grpc(added.error());
  response->set_experiment(added->experiment);
  response->set_tag(added->tag);
  response->set_already_there(added->already_there);
  for (const std::string& name : added->added) response->add_added(name);
  for (const std::string& change : added->updated) response->add_updated(change);
  for (const std::string& warning : checked.warnings) response->add_warnings(warning);
  return grpc::Status::OK;
}

// --- changes ---------------------------------------------------------------------------------------------------------

grpc::Status QueueService::change_runs(RunVerb verb, const v1::RunSelector& selector, bool all,
                                       const std::string& request_id, v1::ChangeResponse& answer) {
  const auto selection = to_selection(selector);
  if (!selection.ok()) return to_grpc(selection.error());
  const ChangeRequest request{verb, *selection, all, request_id};
  const auto changed = context_.loop.call<ChangeAnswer>([&](Queue& queue) { return queue.change(request); });
  if (!changed.ok()) return to_grpc(changed.error());
  fill(answer, *changed);
  return grpc::Status::OK;
}

grpc::Status QueueService::Shutdown(Call*, const v1::ShutdownRequest* request, v1::ShutdownResponse*) {
  log::info("asked to stop{}", request->stop_workers() ? ", workers and runs with it" : "");
  context_.shut_down(request->stop_workers());
  return grpc::Status::OK;
}

}  // namespace assay
