#include "daemon/scheduler.h"

#include <algorithm>

#include "spec/backend.h"

namespace assay {
namespace {

enum class Of { all, usable, free };

int64_t count(const WorkerSlots& worker, DeviceKind kind, Of which) {
  return std::count_if(worker.devices.begin(), worker.devices.end(), [&](const DeviceSlot& d) {
    return d.kind == kind && (which == Of::all || (which == Of::usable ? d.usable : d.free));
  });
}

DeviceKind kind_for(const WaitingRun& run, const std::vector<WorkerSlots>& fleet) {
  int64_t most_gpus = 0;
  for (const WorkerSlots& worker : fleet) most_gpus = std::max(most_gpus, count(worker, DeviceKind::cuda, Of::all));
  return device_kind(decide_backend(run.backend, run.devices, most_gpus));
}

// The worker that could take the run once its usable devices are free and has the most free devices for it; null if
// none ever could. Free devices of a reserving worker only grow, so the choice is stable until the run starts.
WorkerSlots* best_worker(std::vector<WorkerSlots>& fleet, DeviceKind kind, int devices) {
  WorkerSlots* best = nullptr;
  for (WorkerSlots& worker : fleet) {
    if (count(worker, kind, Of::usable) < devices) continue;
    if (!best || count(worker, kind, Of::free) > count(*best, kind, Of::free)) best = &worker;
  }
  return best;
}

// Takes up to `devices` free devices of the kind.
std::vector<std::string> take(WorkerSlots& worker, DeviceKind kind, int devices) {
  std::vector<std::string> ids;
  for (DeviceSlot& d : worker.devices) {
    if (static_cast<int>(ids.size()) == devices) break;
    if (d.kind != kind || !d.free) continue;
    d.free = false;
    ids.push_back(d.id);
  }
  return ids;
}

}  // namespace

bool any_free(const std::vector<WorkerSlots>& fleet) {
  return std::any_of(fleet.begin(), fleet.end(), [](const WorkerSlots& w) {
    return std::any_of(w.devices.begin(), w.devices.end(), [](const DeviceSlot& d) { return d.free; });
  });
}

Schedule schedule(std::span<const WaitingRun> in_order, std::vector<WorkerSlots> fleet, bool held) {
  Schedule result;
  if (held) return result;
  for (const WaitingRun& run : in_order) {
    if (!any_free(fleet)) break;
    const DeviceKind kind = kind_for(run, fleet);
    WorkerSlots* worker = best_worker(fleet, kind, run.devices);
    if (!worker) continue;
    const bool fits_now = count(*worker, kind, Of::free) >= run.devices;
    std::vector<std::string> ids = take(*worker, kind, run.devices);  // taken or reserved
    if (fits_now) result.assignments.push_back({run.run_id, worker->worker_id, std::move(ids)});
  }
  result.devices_left = any_free(fleet);
  return result;
}

}  // namespace assay
