#include "wire/convert.h"

#include <fmt/format.h>

#include "base/log.h"
#include "base/version.h"
#include "wire/archive.h"
#include "wire/step_columns.h"

namespace assay {
namespace {

namespace pb = google::protobuf;
using wire::Reader;
using wire::Writer;
using wire::wrong;

template <class T>
void write(pb::Message& out, const T& value) {
  Writer::write(out, value);
}
void write(v1::MetricBatch& out, const MetricBatch& batch) {
  Writer::write(out, batch);
  to_proto(batch.steps, *out.mutable_columns());
}

// What no single field tells.
template <class T>
Status check(const T&) {
  return {};
}
Status check(const AttemptEvent& event) {
  const bool ended = event.kind == AttemptNews::ended;
  if (ended && !event.outcome) return wrong("event.outcome", "an attempt ended without one");
  if (ended && event.outcome->result == AttemptResult::none)
    return wrong("event.outcome.result", "an attempt ended without one");
  if (!ended && event.outcome)
    return wrong("event.outcome", fmt::format("is not for an attempt that is {}", to_string(event.kind)));
  return {};
}
Status check(const StopMessage& stop) {
  return stop.reason == StopReason::none ? Status(wrong("stop.reason", "none is no reason")) : Status();
}

template <class T, class Variant>
Status read(const pb::Message& in, const char* path, Variant& message) {
  T value;
  ASSAY_TRY(Reader::read(in, path, value));
  ASSAY_TRY(check(value));
  message = std::move(value);
  return {};
}

Status read_steps(const v1::MetricBatch& in, WorkerMessage& message) {
  MetricBatch batch;
  ASSAY_TRY(Reader::read(in, "metrics", batch));
  if (batch.first_seq < 1) return wrong("metrics.first_seq", "is less than 1");
  if (!in.has_columns()) return wrong("metrics.columns", "are missing");
  ASSAY_ASSIGN(ReceivedSteps received, from_proto(in.columns()));
  for (const std::string& name : received.unknown)
    log::warn_once(fmt::format(
        "workers send column \"{}\" with their steps, which this daemon does not know; it is left out", name));
  batch.steps = std::move(received.steps);
  message = std::move(batch);
  return {};
}

std::string end_of(std::string_view which, int64_t protocol, std::string_view version) {
  return fmt::format("{} ({}) speaks protocol {}", which,
                     version.empty() ? "of a version before there were protocol numbers" : printable(version, 64),
                     protocol);
}

template <class Message>
Status check_protocol(const Message& greeting, std::string_view here, std::string_view there) {
  if (greeting.protocol() == wire_protocol) return {};
  return Error{ErrorCode::failed_precondition,
               fmt::format("{}, {}", end_of(there, greeting.protocol(), greeting.version()),
                           end_of(here, wire_protocol, version()))};
}

Status read_into(WorkerMessage& message, const v1::WorkerMessage& in) {
  switch (in.body_case()) {
    case v1::WorkerMessage::kHello:
      ASSAY_TRY(check_protocol(in.hello(), "this daemon", "the worker"));
      return read<Hello>(in.hello(), "hello", message);
    case v1::WorkerMessage::kHeartbeat:
      return read<Heartbeat>(in.heartbeat(), "heartbeat", message);
    case v1::WorkerMessage::kMetrics:
      return read_steps(in.metrics(), message);
    case v1::WorkerMessage::kEvent:
      return read<AttemptEvent>(in.event(), "event", message);
    case v1::WorkerMessage::kProblem:
      return read<Problem>(in.problem(), "problem", message);
    case v1::WorkerMessage::BODY_NOT_SET:
      break;
  }
  return wrong("message", "has no content that is known here");
}

Status read_into(DaemonMessage& message, const v1::DaemonMessage& in) {
  switch (in.body_case()) {
    case v1::DaemonMessage::kWelcome:
      ASSAY_TRY(check_protocol(in.welcome(), "this worker", "the daemon"));
      return read<WelcomeMessage>(in.welcome(), "welcome", message);
    case v1::DaemonMessage::kLease:
      return read<LeaseMessage>(in.lease(), "lease", message);
    case v1::DaemonMessage::kAck:
      return read<MetricAckMessage>(in.ack(), "ack", message);
    case v1::DaemonMessage::kStop:
      return read<StopMessage>(in.stop(), "stop", message);
    case v1::DaemonMessage::kEventAck:
      return read<EventAckMessage>(in.event_ack(), "event_ack", message);
    case v1::DaemonMessage::kDrain:
      return read<DrainMessage>(in.drain(), "drain", message);
    case v1::DaemonMessage::kAbandon:
      return read<AbandonMessage>(in.abandon(), "abandon", message);
    case v1::DaemonMessage::BODY_NOT_SET:
      break;
  }
  return wrong("message", "has no content that is known here");
}

struct ToWorkerMessage {
  v1::WorkerMessage& out;
  void operator()(const Hello& m) { write(*out.mutable_hello(), m); }
  void operator()(const Heartbeat& m) { write(*out.mutable_heartbeat(), m); }
  void operator()(const MetricBatch& m) { write(*out.mutable_metrics(), m); }
  void operator()(const AttemptEvent& m) { write(*out.mutable_event(), m); }
  void operator()(const Problem& m) { write(*out.mutable_problem(), m); }
};
struct ToDaemonMessage {
  v1::DaemonMessage& out;
  void operator()(const WelcomeMessage& m) { write(*out.mutable_welcome(), m); }
  void operator()(const LeaseMessage& m) { write(*out.mutable_lease(), m); }
  void operator()(const MetricAckMessage& m) { write(*out.mutable_ack(), m); }
  void operator()(const StopMessage& m) { write(*out.mutable_stop(), m); }
  void operator()(const EventAckMessage& m) { write(*out.mutable_event_ack(), m); }
  void operator()(const DrainMessage& m) { write(*out.mutable_drain(), m); }
  void operator()(const AbandonMessage& m) { write(*out.mutable_abandon(), m); }
};

template <class Variant, class Proto>
Result<Variant> read_message(const Proto& in) {
  Variant message;
  ASSAY_TRY(read_into(message, in));
  return message;
}

}  // namespace

v1::WorkerMessage to_proto(const WorkerMessage& message) {
  v1::WorkerMessage out;
  std::visit(ToWorkerMessage{out}, message);
  return out;
}

v1::DaemonMessage to_proto(const DaemonMessage& message) {
  v1::DaemonMessage out;
  std::visit(ToDaemonMessage{out}, message);
  return out;
}

Result<WorkerMessage> from_proto(const v1::WorkerMessage& message) {
  return read_message<WorkerMessage>(message);
}

Result<DaemonMessage> from_proto(const v1::DaemonMessage& message) {
  return read_message<DaemonMessage>(message);
}

void fill(v1::AttemptOutcome& out, const AttemptOutcome& outcome) {
  Writer::write(out, outcome);
}

Result<AttemptOutcome> from_proto(const v1::AttemptOutcome& in) {
  AttemptOutcome outcome;
  ASSAY_TRY(Reader::read(in, "outcome", outcome));
  return outcome;
}

}  // namespace assay
