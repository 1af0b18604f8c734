#include "daemon/worker_messages.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "daemon/proto_rows.h"

namespace assay {
namespace {

Error wrong(std::string message) {
  return Error{ErrorCode::invalid_argument, std::move(message)};
}

template <class M>
LeaseRef lease_of(const M& message) {
  return {message.attempt_id(), message.lease_epoch()};
}
template <class M>
void set_lease(M* message, const LeaseRef& lease) {
  message->set_attempt_id(lease.attempt_id);
  message->set_lease_epoch(lease.epoch);
}

Result<WorkerInput> convert(const v1::Hello& hello) {
  if (hello.worker_id().empty() || hello.worker_id().size() > limits::name_chars)
    return wrong(fmt::format("hello: worker_id must have 1 to {} characters", limits::name_chars));
  WorkerGreeting greeting;
  greeting.worker = {
      hello.worker_id(), hello.host(), hello.boot_id(), hello.pid(), hello.start_ticks(), WorkerState::connected, 0};
  for (const v1::Device& device : hello.devices()) {
    if (device.id().empty()) return wrong("hello: a device without an id");
    const auto kind = parse_word<DeviceKind>(device.kind());
    if (!kind.ok()) return wrong(fmt::format("hello: device {}: {}", device.id(), kind.error().message));
    greeting.devices.push_back({device.id(), hello.worker_id(), *kind, device.name(), device.memory_bytes(),
                                DeviceState::free, device.drained_by().substr(0, limits::name_chars)});
  }
  for (const v1::HeldLease& lease : hello.leases()) {
    greeting.leases.push_back(lease_of(lease));
    if (!lease.attempt_key().empty()) greeting.attempt_keys[lease.attempt_id()] = lease.attempt_key();
  }
  return WorkerInput(std::move(greeting));
}

Result<WorkerInput> convert(const v1::Heartbeat& heartbeat) {
  HeartbeatReport report;
  for (const v1::LeaseStatus& status : heartbeat.leases()) {
    ASSAY_ASSIGN(const Phase phase, parse_word<Phase>(status.phase()));
    report.leases.push_back({lease_of(status), phase, status.last_step()});
  }
  for (const v1::OccupiedDevice& device : heartbeat.occupied())
    report.occupied[device.device_id()] = device.by().substr(0, limits::name_chars);
  return WorkerInput(std::move(report));
}

Result<WorkerInput> convert(const v1::MetricBatch& batch) {
  if (batch.first_seq() < 1) return wrong("metrics: first_seq must be at least 1");
  StepReport report{lease_of(batch), batch.first_seq(), {}};
  report.steps.reserve(static_cast<size_t>(batch.steps_size()));
  for (const v1::StepMetrics& step : batch.steps()) report.steps.push_back(to_metrics(step));
  return WorkerInput(std::move(report));
}

Result<WorkerInput> convert(const v1::AttemptEvent& event) {
  AttemptReport report;
  report.lease = lease_of(event);
  report.kind = event.kind();
  for (const char* known : {"started", "resumed", "stopping", "ended", "refused"})
    if (report.kind == known) {
      if (report.kind == "ended") {
        ASSAY_ASSIGN(report.outcome, to_outcome(event.outcome()));
        if (report.outcome.result == AttemptResult::none) return wrong("event: ended without a result");
      }
      report.log_path = event.log_path().substr(0, limits::path_chars);
      report.resumed_from_step = event.resumed_from_step();
      report.message = event.message().substr(0, limits::error_chars);
      return WorkerInput(std::move(report));
    }
  return wrong(fmt::format("event: unknown kind \"{}\"", report.kind));
}

struct ToMessage {
  v1::DaemonMessage& out;

  void operator()(const WelcomeOrder& order) {
    v1::Welcome* welcome = out.mutable_welcome();
    welcome->set_heartbeat_ms(order.heartbeat_ms);
    for (const StepReceipt& stored : order.stored) {
      v1::MetricAck* ack = welcome->add_acks();
      set_lease(ack, stored.lease);
      ack->set_seq(stored.seq);
    }
  }
  void operator()(const LeaseOrder& order) {
    v1::Lease* lease = out.mutable_lease();
    set_lease(lease, order.lease);
    lease->set_attempt(order.attempt);
    lease->set_experiment(order.experiment);
    lease->set_tag(order.tag);
    lease->set_run(order.run);
    lease->set_config_toml(order.config_toml);
    lease->set_folder(order.folder);
    lease->set_run_folder(order.run_folder);
    for (const std::string& id : order.device_ids) lease->add_device_ids(id);
    lease->set_timeout_s(order.timeout_s);
    lease->set_attempt_key(order.attempt_key);
    for (const std::string& key : order.earlier_keys) lease->add_earlier_keys(key);
  }
  void operator()(const StepReceipt& order) {
    set_lease(out.mutable_ack(), order.lease);
    out.mutable_ack()->set_seq(order.seq);
  }
  void operator()(const StopOrder& order) {
    set_lease(out.mutable_stop(), order.lease);
    out.mutable_stop()->set_reason(order.reason);
  }
  void operator()(const EventReceipt& order) {
    set_lease(out.mutable_event_ack(), order.lease);
    out.mutable_event_ack()->set_kind(order.kind);
  }
  void operator()(const DrainOrder&) { out.mutable_drain(); }
  void operator()(const AbandonOrder& order) { set_lease(out.mutable_abandon(), order.lease); }
};

}  // namespace

Result<WorkerInput> to_input(const v1::WorkerMessage& message) {
  switch (message.body_case()) {
    case v1::WorkerMessage::kHello:
      return convert(message.hello());
    case v1::WorkerMessage::kHeartbeat:
      return convert(message.heartbeat());
    case v1::WorkerMessage::kMetrics:
      return convert(message.metrics());
    case v1::WorkerMessage::kEvent:
      return convert(message.event());
    case v1::WorkerMessage::BODY_NOT_SET:
      break;
  }
  return wrong("a message without content");
}

v1::DaemonMessage to_message(const WorkerOrder& order) {
  v1::DaemonMessage message;
  std::visit(ToMessage{message}, order);
  return message;
}

}  // namespace assay
