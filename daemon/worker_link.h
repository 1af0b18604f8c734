// What daemon and worker say to each other as plain structs (proto/worker.proto without protobuf), and the way out to
// one worker. daemon/worker_service converts; tests put a fake worker behind WorkerLink.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "db/types.h"
#include "spec/run_outcome.h"
#include "spec/step_metrics.h"

namespace assay {

// Names a lease: the epoch fences off whatever is said of an older lease.
struct LeaseRef {
  int64_t attempt_id = 0;
  int64_t epoch = 0;
  bool operator==(const LeaseRef&) const = default;
};

// --- from the worker ------------------------------------------------------------------------------------------------
struct WorkerGreeting {
  WorkerRow worker;
  std::vector<DeviceRow> devices;
  std::vector<LeaseRef> leases;                 // all that it holds, ended and not yet acknowledged ones included
  std::map<int64_t, std::string> attempt_keys;  // RunStore::attempt_key of the leases, by attempt id, as far as told
};
struct LeaseReport {
  LeaseRef lease;
  Phase phase = Phase::load;
  int64_t last_step = -1;
};
// Devices on which others compute, and who: DeviceRow::drained_by.
using OccupiedDevices = std::map<std::string, std::string>;
struct HeartbeatReport {
  std::vector<LeaseReport> leases;
  OccupiedDevices occupied;  // all there are now
};
struct StepReport {
  LeaseRef lease;
  int64_t first_seq = 1;  // journal sequence number of steps[0]
  std::vector<StepMetrics> steps;
};
struct AttemptReport {
  LeaseRef lease;
  std::string kind;  // started | resumed | stopping | ended | refused
  AttemptOutcome outcome;
  std::string log_path;
  int64_t resumed_from_step = -1;
  std::string message;
};

// --- to the worker --------------------------------------------------------------------------------------------------
struct StepReceipt {
  LeaseRef lease;
  int64_t seq = 0;
};
struct WelcomeOrder {
  int64_t heartbeat_ms = 0;
  std::vector<StepReceipt> stored;
};
struct LeaseOrder {
  LeaseRef lease;
  int64_t attempt = 1;
  std::string experiment;
  std::string tag;
  std::string run;
  std::string config_toml;
  std::string folder;      // absolute, of this attempt
  std::string run_folder;  // absolute, shared by the run's attempts
  std::vector<std::string> device_ids;
  int64_t timeout_s = 0;
  std::string attempt_key;                // RunStore::attempt_key
  std::vector<std::string> earlier_keys;  // RunStore::earlier_keys
};
struct StopOrder {
  LeaseRef lease;
  std::string reason;
};
struct EventReceipt {
  LeaseRef lease;
  std::string kind;
};
struct DrainOrder {};
struct AbandonOrder {
  LeaseRef lease;
};
using WorkerOrder =
    std::variant<WelcomeOrder, LeaseOrder, StepReceipt, StopOrder, EventReceipt, DrainOrder, AbandonOrder>;

// Neither call blocks or fails: an order lost with its connection is made good at the next greeting.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void send(WorkerOrder order) = 0;
  virtual void close(const std::string& why) = 0;
};

}  // namespace assay
