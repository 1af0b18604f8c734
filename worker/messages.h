// What worker and daemon say to each other, as plain structs: proto/worker.proto without protobuf. Only worker/session
// converts, so the logic of the worker is tested without a network.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "spec/run_outcome.h"
#include "spec/step_metrics.h"
#include "worker/device_inventory.h"

namespace assay {

// Names a lease; the epoch fences off messages of an older lease on the same attempt.
struct LeaseKey {
  int64_t attempt_id = 0;
  int64_t epoch = 0;
  bool operator==(const LeaseKey&) const = default;
};

// --- worker to daemon ----------------------------------------------------------------------------------------------
// A lease and the last journal record of it that the daemon is known to have stored.
struct StoredSeq {
  LeaseKey lease;
  int64_t seq = 0;
};
struct HeldLease {
  LeaseKey lease;
  int64_t seq = 0;          // StoredSeq::seq
  std::string attempt_key;  // LeaseMessage::attempt_key
};
// Devices on which processes compute that are not this worker's, and what they are: "python3 (pid 4711)".
using OccupiedDevices = std::map<std::string, std::string>;
struct Hello {
  std::string worker_id;
  std::string host;
  std::string boot_id;
  int64_t pid = 0;
  int64_t start_ticks = 0;
  std::vector<DeviceInfo> devices;
  OccupiedDevices occupied;
  std::vector<HeldLease> leases;
};
struct LeaseStatus {
  LeaseKey lease;
  Phase phase = Phase::load;
  int64_t last_step = -1;
};
struct Heartbeat {
  std::vector<LeaseStatus> leases;
  OccupiedDevices occupied;  // all there are now
};
struct MetricBatch {
  LeaseKey lease;
  int64_t first_seq = 1;  // journal sequence number of steps[0]
  std::vector<StepMetrics> steps;
};
struct AttemptEvent {
  LeaseKey lease;
  AttemptNews kind = AttemptNews::started;
  std::optional<AttemptOutcome> outcome;  // with ended
  std::string log_path;                   // with started
  int64_t resumed_from_step = -1;         // with started and resumed; -1 = from the start, or not known yet
  std::string message;
};

// --- daemon to worker ----------------------------------------------------------------------------------------------
struct WelcomeMessage {
  int64_t heartbeat_ms = 0;
  std::vector<StoredSeq> stored;
};
struct LeaseMessage {
  LeaseKey lease;
  int64_t attempt = 1;
  std::string run;
  std::string config_toml;
  std::string folder;      // absolute, of this attempt
  std::string run_folder;  // absolute, shared by the run's attempts
  int64_t timeout_s = 0;   // 0 = none
  std::vector<std::string> device_ids = {};
  std::string attempt_key = {};                // names the attempt for ever; empty: an older daemon
  std::vector<std::string> earlier_keys = {};  // of the run's earlier attempts, whose checkpoints it may continue
};
struct MetricAckMessage {
  StoredSeq stored;
};
struct StopMessage {
  LeaseKey lease;
  std::string reason;  // "cancelled" | "stalled" | "timeout" | "worker_stopped"
};
struct EventAckMessage {
  LeaseKey lease;
  std::string kind;
};
struct DrainMessage {};
struct AbandonMessage {
  LeaseKey lease;
};
using DaemonMessage = std::variant<WelcomeMessage, LeaseMessage, MetricAckMessage, StopMessage, EventAckMessage,
                                   DrainMessage, AbandonMessage>;

// Where messages to the daemon go. Sending never blocks and never fails: what was lost with a connection is sent again
// after the next Welcome.
class Uplink {
 public:
  virtual ~Uplink() = default;
  virtual void send(const Heartbeat&) = 0;
  virtual void send(const MetricBatch&) = 0;
  virtual void send(const AttemptEvent&) = 0;
};

}  // namespace assay
