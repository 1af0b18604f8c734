// The checks between a valid spec and the queue: is the data there, does every run fit the devices that are known, does
// it ask only for what this daemon allows. What passes can be queued; nothing is queued if one run does not pass.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "db/run_store.h"
#include "spec/experiment_spec.h"

namespace assay {

struct RunForecast {
  int64_t parameters = 0;
  double peak_mem_mib = 0;
  double mflop_per_token = 0;
  double estimated_seconds = 0;  // 0 = no like run has completed on this home
  std::string problem;           // why it cannot be queued; empty = it can
};

struct PreflightContext {
  std::vector<DeviceListing> devices;  // every device any worker has offered
  int64_t host_memory_bytes = 0;       // for CPU runs while no worker has offered a CPU
  bool allow_faults = false;
  // Step time (ms) of the newest completed run with this speed_key, 0 = none.
  std::function<double(const std::string& speed_key)> step_ms;
};

// Equal for configs whose steps take equally long: the canonical config without seed, step count, learning rates, data
// and faults.
std::string speed_key(const RunConfig& config);

// One forecast a run, in the spec's order.
std::vector<RunForecast> forecast(const ExperimentSpec& spec, const PreflightContext& context);

// speed_key -> step time, from the newest completed runs.
std::function<double(const std::string&)> measured_step_times(RunStore& runs, class MetricStore& metrics);

}  // namespace assay
