// What worker and daemon say to each other, as plain structs: proto/worker.proto without protobuf. wire/convert.h turns
// them into the messages and back, for both ends, so the logic of both is tested without a network. A new field is
// written here and in the proto file; each_field (wire/fields.h) has its name and limit.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "spec/run_outcome.h"
#include "spec/step_metrics.h"

namespace assay {

// Goes up with every change that an end of before it would not understand, or would take for something else: a field or
// message it must not overlook, a word it does not know, another meaning. 0 = of before there were numbers.
inline constexpr int64_t wire_protocol = 1;

// Names a lease; the epoch fences off messages of an older lease on the same attempt.
struct LeaseKey {
  int64_t attempt_id = 0;
  int64_t epoch = 0;
  bool operator==(const LeaseKey&) const = default;
};
// A lease and the last journal record of it that the daemon is known to have stored.
struct StoredSeq {
  LeaseKey lease;
  int64_t seq = 0;
  bool operator==(const StoredSeq&) const = default;
};

// --- worker to daemon ----------------------------------------------------------------------------------------------
// A device that a host offers to the queue.
struct DeviceInfo {
  std::string id;  // "cpu:<host>", or a GPU's UUID; stable over restarts
  DeviceKind kind = DeviceKind::cpu;
  std::string name;  // "AMD EPYC 7B13, 2 cores" | "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
  bool operator==(const DeviceInfo&) const = default;
};
struct HeldLease {
  LeaseKey lease;
  int64_t seq = 0;          // StoredSeq::seq
  std::string attempt_key;  // LeaseMessage::attempt_key; empty: it was leased by a daemon of before there were keys
  bool operator==(const HeldLease&) const = default;
};
// Devices on which processes compute that are not this worker's, and what they are: "python3 (pid 4711)".
using OccupiedDevices = std::map<std::string, std::string>;
// Always the first message.
struct Hello {
  int64_t protocol = wire_protocol;
  std::string version;    // of Assay, for messages to people
  std::string worker_id;  // stable over the restarts of the worker on its home
  std::string host;
  std::string boot_id;      // of the host; with pid and start_ticks the process's ProcessIdentity
  int64_t pid = 0;          // of the worker
  int64_t start_ticks = 0;  // since boot
  std::vector<DeviceInfo> devices;
  OccupiedDevices occupied;       // all there are now
  std::vector<HeldLease> leases;  // all that it holds, ended and not yet acknowledged ones included
  bool operator==(const Hello&) const = default;
};
struct LeaseStatus {
  LeaseKey lease;
  Phase phase = Phase::load;
  int64_t last_step = -1;  // 0-based, -1 = none yet
  bool operator==(const LeaseStatus&) const = default;
};
struct Heartbeat {
  std::vector<LeaseStatus> leases;
  OccupiedDevices occupied;  // all there are now
  bool operator==(const Heartbeat&) const = default;
};
struct MetricBatch {
  LeaseKey lease;
  int64_t first_seq = 1;  // journal sequence number of steps[0]; the others follow without a gap
  std::vector<StepMetrics> steps;
};
struct AttemptEvent {
  LeaseKey lease;
  AttemptNews kind = AttemptNews::started;
  std::optional<AttemptOutcome> outcome;  // with ended, and only with it; its result is never none
  std::string log_path;                   // with started and resumed; absolute
  int64_t resumed_from_step = -1;         // with started and resumed; -1 = from the start, or not known yet
  std::string message;                    // with refused: why; with stopping: the StopReason
};
// The daemon said what this worker does not understand; for the daemon's log.
struct Problem {
  std::string message;
  bool operator==(const Problem&) const = default;
};
using WorkerMessage = std::variant<Hello, Heartbeat, MetricBatch, AttemptEvent, Problem>;

// --- daemon to worker ----------------------------------------------------------------------------------------------
// The answer to Hello, always the first message.
struct WelcomeMessage {
  int64_t heartbeat_ms = 0;       // how often to send one
  std::vector<StoredSeq> stored;  // of the leases that the worker keeps: send everything after it
  int64_t protocol = wire_protocol;
  std::string version = {};  // Hello::version of the daemon
  bool operator==(const WelcomeMessage&) const = default;
};
struct LeaseMessage {
  LeaseKey lease;
  int64_t attempt = 1;  // 1-based within the run
  std::string run;
  std::string config_toml;
  std::string folder;      // absolute, of this attempt
  std::string run_folder;  // absolute, shared by the run's attempts
  int64_t timeout_s = 0;   // 0 = none
  std::vector<std::string> device_ids = {};
  std::string attempt_key = {};                // names the attempt for ever: RunStore::attempt_key
  std::vector<std::string> earlier_keys = {};  // of the run's earlier attempts, whose checkpoints it may continue
  bool operator==(const LeaseMessage&) const = default;
};
// Everything up to `seq` is stored.
struct MetricAckMessage {
  StoredSeq stored;
  bool operator==(const MetricAckMessage&) const = default;
};
struct StopMessage {
  LeaseKey lease;
  StopReason reason = StopReason::cancelled;  // never none
  bool operator==(const StopMessage&) const = default;
};
// What the worker told of the attempt is stored; after `ended` it may forget the lease.
struct EventAckMessage {
  LeaseKey lease;
  AttemptNews kind = AttemptNews::started;
  bool operator==(const EventAckMessage&) const = default;
};
// Take no new lease, end when the last one has ended.
struct DrainMessage {
  bool operator==(const DrainMessage&) const = default;
};
// The lease is not (any longer) this worker's: kill its trainer and forget it.
struct AbandonMessage {
  LeaseKey lease;
  bool operator==(const AbandonMessage&) const = default;
};
using DaemonMessage = std::variant<WelcomeMessage, LeaseMessage, MetricAckMessage, StopMessage, EventAckMessage,
                                   DrainMessage, AbandonMessage>;

}  // namespace assay
