// Which waiting run gets which devices, as a pure function.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "spec/run_config.h"
#include "spec/words.h"

namespace assay {

struct DeviceSlot {
  std::string id;
  DeviceKind kind = DeviceKind::cpu;
  bool free = true;
  bool usable = true;  // false: drained, or its worker takes no lease for now; then it is not free either
};
// A connected worker and its devices.
struct WorkerSlots {
  std::string worker_id;
  std::vector<DeviceSlot> devices;
};
struct WaitingRun {
  int64_t run_id = 0;
  int devices = 1;
  Backend backend = Backend::automatic;  // what it wants; spec/backend.h decides an automatic one
};
struct Assignment {
  int64_t run_id = 0;
  std::string worker_id;
  std::vector<std::string> device_ids;
};
struct Schedule {
  std::vector<Assignment> assignments;
  bool devices_left = false;  // some device is neither assigned nor reserved: a run further back may use it
};

bool any_free(const std::vector<WorkerSlots>& fleet);

// `in_order`: the order in which runs deserve devices (priority, then age). A run's devices are of one worker and taken
// together or not at all. The first runs that fit some worker but not now reserve the free devices of the worker that
// has most of what they need, so that smaller runs behind them cannot starve them. Nothing is assigned while held.
Schedule schedule(std::span<const WaitingRun> in_order, std::vector<WorkerSlots> fleet, bool held);

}  // namespace assay
