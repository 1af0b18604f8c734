#include "daemon/proto_rows.h"

#include <fmt/format.h>

#include "wire/convert.h"

namespace assay {
namespace {

std::string text(std::string_view view) {
  return std::string(view);
}

}  // namespace

void fill(v1::Attempt& out, const AttemptRow& a, const AttemptSummary& s) {
  out.set_id(a.id);
  out.set_n(a.n);
  out.set_state(text(to_string(a.state)));
  out.set_phase(text(to_string(a.phase)));
  fill(*out.mutable_outcome(), a.outcome);
  out.set_worker_id(a.worker_id);
  out.set_lease_epoch(a.lease_epoch);
  out.set_created_at(a.created_at);
  out.set_started_at(a.started_at);
  out.set_finished_at(a.finished_at);
  out.set_log_path(a.log_path);
  out.set_resumed_from_step(a.resumed_from_step);
  out.set_steps_observed(s.steps_observed);
  out.set_last_step(s.last_step);
  out.set_last_loss(s.last_loss);
  out.set_tail50_tok_per_sec(s.tail50_tok_per_sec);
  out.set_tail50_mfu(s.tail50_mfu);
  out.set_tail50_dt_ms(s.tail50_dt_ms);
  out.set_peak_mem_mib(std::max(s.peak_mem_mib, a.outcome.peak_mem_mib));
}

void fill(v1::Run& out, const ListedRun& listed) {
  const RunRow& run = listed.run;
  out.set_id(run.id);
  out.set_experiment(listed.experiment);
  out.set_tag(listed.tag);
  out.set_name(run.name);
  out.set_state(text(to_string(run.state)));
  out.set_priority(run.priority);
  out.set_repeat(run.repeat);
  out.set_seed(run.seed);
  out.set_devices(run.devices);
  out.set_total_steps(run.total_steps);
  out.set_not_before(run.not_before);
  out.set_cancel_requested(run.cancel_requested);
  out.set_created_at(run.created_at);
  out.set_finished_at(run.finished_at);
}

void fill(v1::Device& out, const DeviceListing& listed, bool connected) {
  const DeviceRow& device = listed.device;
  out.set_id(device.id);
  out.set_kind(text(to_string(device.kind)));
  out.set_name(device.name);
  out.set_memory_bytes(device.memory_bytes);
  out.set_state(text(to_string(connected ? device.state : DeviceState::offline)));
  out.set_worker_id(device.worker_id);
  out.set_host(listed.host);
  out.set_run(listed.run);
  if (connected) out.set_drained_by(device.drained_by);
}

void fill(v1::ChangeResponse& out, const ChangeAnswer& answer) {
  for (const std::string& name : answer.changed) out.add_changed(name);
  for (const std::string& name : answer.unchanged) out.add_unchanged(name);
}

Result<Selection> to_selection(const v1::RunSelector& in) {
  Selection selection;
  selection.names.assign(in.names().begin(), in.names().end());
  selection.ids.assign(in.ids().begin(), in.ids().end());
  selection.tag = in.tag();
  for (const std::string& word : in.states()) {
    ASSAY_ASSIGN(const RunState state, parse_word<RunState>(word));
    selection.states.push_back(state);
  }
  return selection;
}

}  // namespace assay
