#include "daemon/proto_rows.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace assay {
namespace {

std::string text(std::string_view view) {
  return std::string(view);
}

// protobuf strings must be UTF-8, while logs and errors may hold any byte.
std::string utf8(const std::string& bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const unsigned char lead = static_cast<unsigned char>(bytes[i]);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : lead >= 0xE0 && lead < 0xF0 ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    bool whole = length > 0 && i + length <= bytes.size();
    for (size_t k = 1; whole && k < length; ++k) whole = (static_cast<unsigned char>(bytes[i + k]) & 0xC0) == 0x80;
    if (whole) {
      out.append(bytes, i, length);
      i += length;
    } else {
      out += '?';
      ++i;
    }
  }
  return out;
}

}  // namespace

void fill(v1::StepMetrics& out, const StepMetrics& m) {
  out.set_step(m.step);
  out.set_loss(m.loss);
  out.set_dt_ms(m.dt_ms);
  out.set_tok_per_sec(m.tok_per_sec);
  out.set_mfu(m.mfu);
  out.set_lr_scale(m.lr_scale);
  out.set_grad_norm(m.grad_norm);
  out.set_expert_load_min(m.expert_load_min);
  out.set_expert_load_max(m.expert_load_max);
  out.set_peak_mem_mib(m.peak_mem_mib);
  out.set_val_loss(m.val_loss);
  out.set_unix_ms(m.unix_ms);
}

StepMetrics to_metrics(const v1::StepMetrics& in) {
  StepMetrics m;
  m.step = in.step();
  m.loss = in.loss();
  m.dt_ms = in.dt_ms();
  m.tok_per_sec = in.tok_per_sec();
  m.mfu = in.mfu();
  m.lr_scale = in.lr_scale();
  m.grad_norm = in.grad_norm();
  m.expert_load_min = in.expert_load_min();
  m.expert_load_max = in.expert_load_max();
  m.peak_mem_mib = in.peak_mem_mib();
  m.val_loss = in.val_loss();
  m.unix_ms = in.unix_ms();
  return m;
}

void fill(v1::AttemptOutcome& out, const AttemptOutcome& o) {
  out.set_result(text(to_string(o.result)));
  out.set_reason(text(to_string(o.reason)));
  out.set_error(utf8(o.error));
  out.set_operation(utf8(o.operation));
  out.set_tensor(utf8(o.tensor));
  out.set_step(o.step);
  out.set_exit_code(o.exit_code);
  out.set_signal(o.signal);
  out.set_peak_mem_mib(o.peak_mem_mib);
  out.set_log_tail(utf8(o.log_tail));
}

Result<AttemptOutcome> to_outcome(const v1::AttemptOutcome& in) {
  AttemptOutcome o;
  ASSAY_ASSIGN(o.result, parse_word<AttemptResult>(in.result()));
  ASSAY_ASSIGN(o.reason, parse_word<FailureReason>(in.reason().empty() ? "none" : in.reason()));
  o.error = in.error().substr(0, limits::error_chars);
  o.operation = in.operation().substr(0, limits::name_chars);
  o.tensor = in.tensor().substr(0, limits::name_chars);
  o.step = in.step();
  o.exit_code = in.exit_code();
  o.signal = in.signal();
  o.peak_mem_mib = in.peak_mem_mib();
  const std::string& tail = in.log_tail();
  o.log_tail = tail.substr(tail.size() - std::min(tail.size(), limits::log_tail_bytes));
  return o;
}

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
