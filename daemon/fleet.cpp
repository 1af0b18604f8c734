#include "daemon/fleet.h"

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"

namespace assay {

void Fleet::load(const std::vector<WorkerRow>& rows) {
  workers_.clear();
  for (const WorkerRow& row : rows) workers_[row.id].row = row;
}

void Fleet::close_all(const std::string& why) {
  for (auto& [id, worker] : workers_)
    if (worker.link) worker.link->close(why);
  workers_.clear();
}

// --- connections -----------------------------------------------------------------------------------------------------

WorkerHello Fleet::greet(std::shared_ptr<WorkerLink> link, const Hello& hello) {
  Worker& worker = workers_[hello.worker_id];
  if (worker.link && worker.link != link) worker.link->close("the worker has opened a newer session");
  worker.row = WorkerRow{.id = hello.worker_id,
                         .host = hello.host,
                         .boot_id = hello.boot_id,
                         .pid = hello.pid,
                         .start_ticks = hello.start_ticks,
                         .state = WorkerState::connected,
                         .last_seen = clock_.unix_ms()};
  worker.link = std::move(link);
  worker.heartbeat_at = clock_.monotonic_ms();
  worker.lease_again_at = 0;
  worker.device_ids.clear();
  worker.occupied.clear();
  WorkerHello change{worker.row, {}};
  for (const DeviceInfo& device : hello.devices) {
    for (auto& [id, other] : workers_) {
      other.device_ids.erase(device.id);
      other.occupied.erase(device.id);
    }
    worker.device_ids.insert(device.id);
    const auto user = hello.occupied.find(device.id);
    if (user != hello.occupied.end()) worker.occupied.insert(*user);
    change.devices.push_back({.id = device.id,
                              .worker_id = hello.worker_id,
                              .kind = device.kind,
                              .name = device.name,
                              .memory_bytes = device.memory_bytes,
                              .drained_by = user == hello.occupied.end() ? "" : user->second});
  }
  return change;
}

WorkerChange Fleet::disconnect(const std::string& worker_id) {
  Worker& worker = workers_.at(worker_id);
  worker.link.reset();
  worker.row.state = WorkerState::disconnected;
  return WorkerChange{worker_id, WorkerState::disconnected, "its session ended"};
}

std::string Fleet::worker_of(const WorkerLink* link) const {
  for (const auto& [id, worker] : workers_)
    if (link && worker.link.get() == link) return id;
  return {};
}

std::shared_ptr<WorkerLink> Fleet::link_of(const std::string& worker_id) const {
  const auto it = workers_.find(worker_id);
  return it == workers_.end() ? nullptr : it->second.link;
}

std::vector<std::shared_ptr<WorkerLink>> Fleet::links() const {
  std::vector<std::shared_ptr<WorkerLink>> links;
  for (const auto& [id, worker] : workers_)
    if (worker.link) links.push_back(worker.link);
  return links;
}

bool Fleet::is_of_earlier_boot(const std::string& worker_id, const Hello& hello) const {
  const auto it = workers_.find(worker_id);
  return it != workers_.end() && worker_id != hello.worker_id && it->second.row.host == hello.host &&
         !hello.boot_id.empty() && it->second.row.boot_id != hello.boot_id;
}

// --- signs of life ---------------------------------------------------------------------------------------------------

void Fleet::heartbeat(const std::string& worker_id) {
  workers_.at(worker_id).heartbeat_at = clock_.monotonic_ms();
}

bool Fleet::is_talking(const std::string& worker_id) const {
  const auto it = workers_.find(worker_id);
  return it != workers_.end() && it->second.link && clock_.monotonic_ms() - it->second.heartbeat_at < limits::lease_ms;
}

// --- devices ---------------------------------------------------------------------------------------------------------

ChangeList Fleet::occupied(const std::string& worker_id, OccupiedDevices now) {
  Worker& worker = workers_.at(worker_id);
  std::erase_if(now, [&](const auto& device) { return !worker.device_ids.contains(device.first); });
  ChangeList changes;
  if (now == worker.occupied) return changes;
  for (const auto& [id, user] : worker.occupied)
    if (!now.contains(id)) {
      log::info("device {}: nobody else uses it any longer", id);
      changes.push_back(DeviceChange{id, {}});
    }
  for (const auto& [id, user] : now) {
    if (!worker.occupied.contains(id)) log::warn("device {} is drained: used by {}", id, user);
    changes.push_back(DeviceChange{id, user});
  }
  worker.occupied = std::move(now);
  return changes;
}

bool Fleet::any_occupied(const std::string& worker_id, const std::vector<std::string>& device_ids) const {
  const OccupiedDevices& occupied = workers_.at(worker_id).occupied;
  return std::any_of(device_ids.begin(), device_ids.end(), [&](const auto& id) { return occupied.contains(id); });
}

std::vector<WorkerSlots> Fleet::slots(const std::vector<DeviceListing>& listed,
                                      const std::set<std::string>& busy) const {
  if (draining_) return {};
  std::map<std::string, WorkerSlots> by_worker;
  for (const DeviceListing& listing : listed) {
    const DeviceRow& device = listing.device;
    const auto owner = workers_.find(device.worker_id);
    if (owner == workers_.end() || !owner->second.link) continue;
    const Worker& worker = owner->second;
    const bool usable = worker.lease_again_at == 0 && !worker.occupied.contains(device.id);
    WorkerSlots& slots = by_worker[device.worker_id];
    slots.worker_id = device.worker_id;
    slots.devices.push_back({device.id, device.kind, usable && !busy.contains(device.id), usable});
  }
  std::vector<WorkerSlots> slots;
  for (auto& [id, worker] : by_worker) slots.push_back(std::move(worker));
  return slots;
}

// --- refusals --------------------------------------------------------------------------------------------------------

void Fleet::refused(const std::string& worker_id) {
  Worker& worker = workers_.at(worker_id);
  worker.refused_pause_ms =
      std::clamp(2 * worker.refused_pause_ms, limits::refused_pause_min_ms, limits::refused_pause_max_ms);
  worker.lease_again_at = clock_.monotonic_ms() + worker.refused_pause_ms;
}

void Fleet::started_one(const std::string& worker_id) {
  workers_.at(worker_id).refused_pause_ms = 0;
}

bool Fleet::end_pauses() {
  bool ended = false;
  for (auto& [id, worker] : workers_) {
    if (worker.lease_again_at == 0 || worker.lease_again_at > clock_.monotonic_ms()) continue;
    worker.lease_again_at = 0;
    ended = true;
  }
  return ended;
}

std::optional<int64_t> Fleet::ms_to_end_of_pause() const {
  std::optional<int64_t> wait;
  for (const auto& [id, worker] : workers_) {
    if (worker.lease_again_at == 0) continue;
    const int64_t until = worker.lease_again_at - clock_.monotonic_ms();
    wait = std::min(wait.value_or(until), until);
  }
  return wait;
}

}  // namespace assay
