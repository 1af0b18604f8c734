// Rows of the store as plain structs, shared by db, daemon and report. Times are ms since 1970 UTC, 0 = not yet.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "spec/experiment_spec.h"
#include "spec/run_outcome.h"
#include "spec/step_metrics.h"

namespace assay {

struct ExperimentRow {
  int64_t id = 0;
  std::string name;
  std::string tag;
  std::string spec_text;
  std::string spec_hash;
  std::string baseline;  // run name the report compares against, empty = first run
  OnFailure on_failure = OnFailure::continue_;
  RetryPolicy retry;
  int64_t created_at = 0;
};

struct RunRow {
  int64_t id = 0;
  int64_t experiment_id = 0;
  std::string name;
  std::string cell_key;
  int repeat = 1;
  int64_t seed = 0;
  std::string config_toml;
  RunState state = RunState::queued;
  int priority = 0;
  int devices = 1;
  Backend backend = Backend::automatic;  // stored as a column: the scheduler must not parse configs
  int64_t not_before = 0;                // retry_wait: earliest start
  bool cancel_requested = false;
  int64_t attempts = 0;          // attempts made so far: those whose trainer ran, and the live one
  int64_t lost_attempts = 0;     // of those, ended by losing a worker or daemon: they do not use up retries
  int64_t stopped_attempts = 0;  // of those, ended with a worker that was told to stop: they use up nothing
  int64_t created_at = 0;
  int64_t finished_at = 0;
  int64_t total_steps = 0;  // train.steps, for progress without parsing the config
};

struct AttemptRow {
  int64_t id = 0;
  int64_t run_id = 0;
  int64_t n = 0;            // 1-based within the run; 0 = it never started (AttemptResult::not_started)
  int64_t lease_epoch = 0;  // fencing token, unique over all attempts
  std::string worker_id;
  AttemptState state = AttemptState::leased;
  Phase phase = Phase::load;
  StopReason stop = StopReason::none;  // why it was told to stop, if it was
  AttemptOutcome outcome;              // result == none while live
  int64_t created_at = 0;
  int64_t started_at = 0;  // first sign of the trainer running
  int64_t finished_at = 0;
  std::string log_path;            // absolute; in the file relative to the home
  int64_t resumed_from_step = -1;  // -1 = from the start
};

// The K of tail50: more than the noise of single steps, less than a schedule's phases.
inline constexpr int64_t tail_steps = 50;

// Aggregates over an attempt's steps, for ls/watch/report. tail50 = mean over the last 50 observed steps.
struct AttemptSummary {
  int64_t steps_observed = 0;
  int64_t last_step = -1;
  double last_loss = 0;
  double tail50_tok_per_sec = 0;
  double tail50_mfu = 0;
  double tail50_dt_ms = 0;
  double tail50_loss = 0;
  double peak_mem_mib = 0;
  double last_val_loss = 0;  // NaN = never evaluated
};

struct EventRow {
  int64_t id = 0;
  int64_t at = 0;
  int64_t experiment_id = 0;
  int64_t run_id = 0;      // 0 = not about one run
  int64_t attempt_id = 0;  // 0 = not about one attempt
  EventKind kind = EventKind::run_enqueued;
  std::string from_state;  // of what the kind is about: a run, an attempt, a worker, a device, the queue
  std::string to_state;
  std::string cause;  // human words: "assay cancel", "worker reported exit code 3"
};

struct DeviceRow {
  std::string id;  // UUID of a GPU, "cpu:<host>" for the host's CPUs
  std::string worker_id;
  DeviceKind kind = DeviceKind::cpu;
  std::string name;
  int64_t memory_bytes = 0;
  DeviceState state = DeviceState::free;
  std::string drained_by;  // who else computes on it, "python3 (pid 4711)"; empty = nobody, it is not drained
};

struct DeviceListing {
  DeviceRow device;  // state: drained, else busy while an attempt holds it, else free
  std::string host;
  int64_t attempt_id = 0;  // the attempt that holds it, 0 = none
  std::string run;         // and its run's name
};

// How far a queue has come: for each table of queue.db whose ids are never used twice ("attempts", "events", ...), and
// for "lease_epoch", the greatest number given out so far; a counter that has given out none may be missing.
using QueueMark = std::map<std::string, int64_t, std::less<>>;

struct WorkerRow {
  std::string id;
  std::string host;
  std::string boot_id;
  int64_t pid = 0;
  int64_t start_ticks = 0;
  WorkerState state = WorkerState::disconnected;
  int64_t last_seen = 0;
};

}  // namespace assay
