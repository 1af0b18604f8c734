#include "cli/output.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "cli/error_line.h"
#include "cli/format.h"
#include "spec/words.h"

namespace assay {

void remark(Context& context, const std::string& text) {
  context.console.err << remark_lines(text);
}

void print_json(Context& context, const Json& json) {
  context.console.out << json.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
}

Json to_json(double number) {
  return std::isfinite(number) ? Json(number) : Json(nullptr);
}

Json to_json(const StepMetrics& metrics) {
  Json json = Json::object();
  for (const StepField& field : step_fields) {
    Json& value = json[std::string(field.name)];  // null where it was not recorded
    if (!field.is_recorded_in(metrics)) continue;
    field.visit(metrics, [&](auto number) {
      if constexpr (std::is_integral_v<decltype(number)>)
        value = number;
      else
        value = to_json(number);
    });
  }
  return json;
}

Json to_json(const v1::Attempt& a) {
  Json json = {{"n", a.n()},
               {"state", a.state()},
               {"phase", a.phase()},
               {"worker_id", a.worker_id()},
               {"created_at", a.created_at()},
               {"started_at", a.started_at()},
               {"finished_at", a.finished_at()},
               {"log_path", a.log_path()},
               {"resumed_from_step", a.resumed_from_step()},
               {"steps_observed", a.steps_observed()}};
  const bool observed = a.steps_observed() > 0;
  json["last_step"] = observed ? Json(a.last_step()) : Json(nullptr);
  json["last_loss"] = observed ? to_json(a.last_loss()) : Json(nullptr);
  json["tail50_tok_per_sec"] = observed ? to_json(a.tail50_tok_per_sec()) : Json(nullptr);
  json["tail50_mfu"] = observed ? to_json(a.tail50_mfu()) : Json(nullptr);
  json["tail50_dt_ms"] = observed ? to_json(a.tail50_dt_ms()) : Json(nullptr);
  json["peak_mem_mib"] = a.peak_mem_mib() > 0 ? to_json(a.peak_mem_mib()) : Json(nullptr);
  const v1::AttemptOutcome& o = a.outcome();
  if (o.result().empty() || o.result() == to_string(AttemptResult::none)) {
    json["outcome"] = nullptr;
    return json;
  }
  json["outcome"] = {{"result", o.result()},       {"reason", o.reason()}, {"error", o.error()},
                     {"operation", o.operation()}, {"tensor", o.tensor()}, {"step", o.step()},
                     {"exit_code", o.exit_code()}, {"signal", o.signal()}, {"log_tail", o.log_tail()}};
  return json;
}

Json to_json(const v1::Run& r) {
  Json json = {{"name", r.name()},
               {"experiment", r.experiment()},
               {"tag", r.tag()},
               {"state", r.state()},
               {"priority", r.priority()},
               {"repeat", r.repeat()},
               {"seed", r.seed()},
               {"devices", r.devices()},
               {"total_steps", r.total_steps()},
               {"not_before", r.not_before()},
               {"cancel_requested", r.cancel_requested()},
               {"created_at", r.created_at()},
               {"finished_at", r.finished_at()},
               {"latest", r.has_latest() ? to_json(r.latest()) : Json(nullptr)}};
  if (r.attempts_size() > 0) {
    json["attempts"] = Json::array();
    for (const v1::Attempt& a : r.attempts()) json["attempts"].push_back(to_json(a));
  }
  if (!r.config_toml().empty()) {  // only what GetRun tells
    json["config_toml"] = r.config_toml();
    json["not_started"] = r.not_started();
  }
  return json;
}

Json to_json(const v1::Device& d) {
  return {{"id", d.id()},
          {"kind", d.kind()},
          {"name", d.name()},
          {"memory_bytes", d.memory_bytes()},
          {"state", d.state()},
          {"worker_id", d.worker_id()},
          {"host", d.host()},
          {"run", d.run()},
          {"drained_by", d.drained_by()}};
}

std::string gpu_load_text(const GpuFacts* gpu) {
  if (!gpu) return "-";
  std::string text = format_bytes(static_cast<double>(gpu->memory_used_bytes)) + " used";
  if (gpu->utilization_percent) text += fmt::format(", {} % busy", *gpu->utilization_percent);
  if (gpu->temperature_c) text += fmt::format(", {} C", *gpu->temperature_c);
  if (gpu->power_w) text += fmt::format(", {:.0f} W", *gpu->power_w);
  return text;
}

Json gpu_load_json(const GpuFacts* gpu) {
  if (!gpu) return nullptr;
  const auto value = [](const auto& optional) { return optional ? Json(*optional) : Json(nullptr); };
  return {{"memory_used_bytes", gpu->memory_used_bytes},
          {"utilization_percent", value(gpu->utilization_percent)},
          {"temperature_c", value(gpu->temperature_c)},
          {"power_w", value(gpu->power_w)},
          {"ecc_uncorrected", value(gpu->ecc_uncorrected)}};
}

Json to_json(const v1::Event& e) {
  return {{"id", e.id()},      {"at", e.at()},           {"experiment", e.experiment()},
          {"tag", e.tag()},    {"run", e.run()},         {"attempt", e.attempt()},
          {"kind", e.kind()},  {"from", e.from_state()}, {"to", e.to_state()},
          {"cause", e.cause()}};
}

Json to_json(const v1::ChangeResponse& c) {
  Json json = {{"changed", Json::array()}, {"unchanged", Json::array()}};
  for (const std::string& name : c.changed()) json["changed"].push_back(name);
  for (const std::string& why : c.unchanged()) json["unchanged"].push_back(why);
  return json;
}

}  // namespace assay
