// The checks between a valid spec and the queue: is the data there, does every run fit the devices that are known, does
// it ask only for what this daemon allows. What passes can be queued; nothing is queued if one run does not pass.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "db/types.h"
#include "spec/experiment_spec.h"

namespace assay {

class MetricStore;
class RunStore;

struct RunForecast {
  int64_t parameters = 0;
  double peak_mem_mib = 0;
  double mflop_per_token = 0;
  double estimated_seconds = 0;         // 0 = no like run has completed on this home
  DeviceKind device = DeviceKind::cpu;  // what it would run on
  std::string device_name;
  std::string problem;                // why it cannot be queued; empty = it can
  bool too_large = false;             // the problem: no device that is known has enough memory, or there are too few
  std::string shortage;               // it fits, but not into what is available at the moment
  std::vector<std::string> warnings;  // it can be queued, but hardly runs as it was meant
};

struct PreflightContext {
  std::vector<DeviceListing> devices;  // every device any worker has offered
  HostMemory host_memory;              // for CPU runs: the size while no worker has offered a CPU; what is available
  bool allow_faults = false;
  // Step time (ms) of the newest completed run with this speed_key, 0 = none.
  std::function<double(const std::string& speed_key)> step_ms;
};

struct Forecast {
  std::vector<RunForecast> runs;      // in the spec's order
  std::vector<std::string> warnings;  // each once, with how many runs it concerns
  std::vector<std::string> notes;     // what was found out on the way: the corpora
};

// Equal for configs whose steps take equally long: the canonical config without seed, step count, learning rates, data
// and faults.
std::string speed_key(const RunConfig& config);

Forecast forecast(const ExperimentSpec& spec, const PreflightContext& context);

// How long those runs take on the devices there are, each kind working its share off side by side; 0 = not known.
// `chosen`: indices of runs.
double total_seconds(const ExperimentSpec&, const Forecast&, const PreflightContext&,
                     const std::vector<size_t>& chosen);

// speed_key -> step time, from the newest completed runs.
std::function<double(const std::string&)> measured_step_times(RunStore& runs, MetricStore& metrics);

}  // namespace assay
