#include "db/fleet_tables.h"

#include <fmt/core.h>

#include <algorithm>

#include "db/run_rows.h"

namespace assay {

namespace {

Error aborted(std::string message) {
  return Error{ErrorCode::aborted, std::move(message)};
}

EventKind kind_of(WorkerState state) {
  return state == WorkerState::connected ? EventKind::worker_connected : EventKind::worker_disconnected;
}

}  // namespace

// --- changes --------------------------------------------------------------------------------------------------------

Status FleetTables::apply(const WorkerHello& change) {
  const WorkerRow& worker = change.worker;
  ASSAY_TRY(db_.run(
      "INSERT INTO workers (id, host, boot_id, pid, start_ticks, state, last_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) "
      "ON CONFLICT (id) DO UPDATE SET host = ?2, boot_id = ?3, pid = ?4, start_ticks = ?5, state = ?6, last_seen = ?7",
      worker.id, worker.host, worker.boot_id, worker.pid, worker.start_ticks, to_string(worker.state),
      worker.last_seen));

  std::vector<std::string> gone;
  ASSAY_ASSIGN(auto known, db_.prepare("SELECT id FROM devices WHERE worker_id = ? AND id NOT IN "
                                       "(SELECT device_id FROM allocations)"));
  known.bind(worker.id);
  while (true) {
    ASSAY_ASSIGN(bool row, known.step());
    if (!row) break;
    bool named = std::any_of(change.devices.begin(), change.devices.end(),
                             [&](const DeviceRow& device) { return device.id == known.text(0); });
    if (!named) gone.push_back(known.text(0));
  }
  for (const std::string& id : gone) ASSAY_TRY(db_.run("DELETE FROM devices WHERE id = ?", id));
  for (const DeviceRow& device : change.devices) {
    ASSAY_TRY(
        db_.run("INSERT INTO devices (id, worker_id, kind, name, memory_bytes) VALUES (?1, ?2, ?3, ?4, ?5) "
                "ON CONFLICT (id) DO UPDATE SET worker_id = ?2, kind = ?3, name = ?4, memory_bytes = ?5",
                device.id, worker.id, to_string(device.kind), device.name, device.memory_bytes));
    ASSAY_TRY(apply(DeviceChange{device.id, device.drained_by}));
  }
  EventRow event;
  event.kind = kind_of(worker.state);
  event.to_state = to_string(worker.state);
  event.cause = fmt::format("worker {} on {} (pid {}) with {} devices", worker.id, worker.host, worker.pid,
                            change.devices.size());
  return events_.write(event);
}

Status FleetTables::apply(const WorkerChange& change) {
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT state FROM workers WHERE id = ?"));
  ASSAY_ASSIGN(bool row, found.bind(change.worker_id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no worker {}", change.worker_id)};
  EventRow event;
  event.kind = kind_of(change.state);
  event.from_state = found.text(0);
  event.to_state = to_string(change.state);
  event.cause = change.cause;
  ASSAY_TRY(db_.run("UPDATE workers SET state = ?, last_seen = ? WHERE id = ?", to_string(change.state),
                    clock_.unix_ms(), change.worker_id));
  return events_.write(event);
}

Status FleetTables::apply(const DeviceChange& change) {
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT drained_by FROM devices WHERE id = ?"));
  ASSAY_ASSIGN(bool row, found.bind(change.device_id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no device {}", change.device_id)};
  const std::string before = found.text(0);
  if (before == change.drained_by) return {};
  ASSAY_TRY(db_.run("UPDATE devices SET drained_by = ? WHERE id = ?", change.drained_by, change.device_id));
  const bool drained = !change.drained_by.empty();
  if (drained != before.empty()) return {};
  EventRow event;
  event.kind = drained ? EventKind::device_drained : EventKind::device_undrained;
  event.from_state = to_string(drained ? DeviceState::free : DeviceState::drained);
  event.to_state = to_string(drained ? DeviceState::drained : DeviceState::free);
  event.cause = drained ? fmt::format("{}: used by {}", change.device_id, change.drained_by)
                        : fmt::format("{}: nobody else uses it any longer", change.device_id);
  return events_.write(event);
}

Status FleetTables::allocate(const AttemptRow& attempt, const std::vector<std::string>& device_ids) {
  for (const std::string& id : device_ids) {
    ASSAY_ASSIGN(auto device, db_.prepare("SELECT d.worker_id, d.drained_by, l.attempt_id FROM devices d "
                                          "LEFT JOIN allocations l ON l.device_id = d.id WHERE d.id = ?"));
    ASSAY_ASSIGN(bool row, device.bind(id).step());
    if (!row) return aborted(fmt::format("there is no device {}", id));
    if (device.text(0) != attempt.worker_id) {
      return aborted(fmt::format("device {} belongs to worker {}, not {}", id, device.text(0), attempt.worker_id));
    }
    if (!device.text(1).empty()) return aborted(fmt::format("device {} is drained: used by {}", id, device.text(1)));
    if (!device.is_null(2)) return aborted(fmt::format("device {} is held by attempt {}", id, device.integer(2)));
    ASSAY_TRY(db_.run("INSERT INTO allocations (device_id, attempt_id) VALUES (?, ?)", id, attempt.id));
  }
  return {};
}

// --- reads ----------------------------------------------------------------------------------------------------------

Result<bool> FleetTables::has_worker(const std::string& worker_id) const {
  ASSAY_ASSIGN(int64_t workers, db_.integer("SELECT count(*) FROM workers WHERE id = ?", worker_id));
  return workers != 0;
}

Result<std::vector<std::string>> FleetTables::held_by(int64_t attempt_id) const {
  ASSAY_ASSIGN(auto rows, db_.prepare("SELECT device_id FROM allocations WHERE attempt_id = ? ORDER BY device_id"));
  rows.bind(attempt_id);
  std::vector<std::string> device_ids;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return device_ids;
    device_ids.push_back(rows.text(0));
  }
}

Result<std::vector<WorkerRow>> FleetTables::workers() const {
  ASSAY_ASSIGN(auto rows,
               db_.prepare("SELECT id, host, boot_id, pid, start_ticks, state, last_seen FROM workers ORDER BY id"));
  rows.bind();
  std::vector<WorkerRow> workers;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return workers;
    ASSAY_ASSIGN(const WorkerState state, read_word<WorkerState>(rows, 5, "workers.state"));
    workers.push_back(
        {rows.text(0), rows.text(1), rows.text(2), rows.integer(3), rows.integer(4), state, rows.integer(6)});
  }
}

Result<std::vector<DeviceListing>> FleetTables::devices() const {
  ASSAY_ASSIGN(auto rows,
               db_.prepare("SELECT d.id, d.worker_id, d.kind, d.name, d.memory_bytes, "
                           "d.drained_by, w.host, l.attempt_id, r.name "
                           "FROM devices d JOIN workers w ON w.id = d.worker_id "
                           "LEFT JOIN allocations l ON l.device_id = d.id LEFT JOIN attempts a ON a.id = l.attempt_id "
                           "LEFT JOIN runs r ON r.id = a.run_id ORDER BY w.host, d.id"));
  rows.bind();
  std::vector<DeviceListing> devices;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return devices;
    DeviceListing listing{.host = rows.text(6), .attempt_id = rows.integer(7), .run = rows.text(8)};
    DeviceRow& device = listing.device;
    device.id = rows.text(0);
    device.worker_id = rows.text(1);
    ASSAY_ASSIGN(device.kind, read_word<DeviceKind>(rows, 2, "devices.kind"));
    device.name = rows.text(3);
    device.memory_bytes = rows.integer(4);
    device.drained_by = rows.text(5);
    if (!device.drained_by.empty())
      device.state = DeviceState::drained;
    else if (listing.attempt_id != 0)
      device.state = DeviceState::busy;
    devices.push_back(std::move(listing));
  }
}

}  // namespace assay
