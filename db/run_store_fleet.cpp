// Workers, devices, settings, remembered requests and the event feed.
#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"
#include "db/run_store_impl.h"

namespace assay {

namespace {

EventKind kind_of(WorkerState state) {
  return state == WorkerState::connected ? EventKind::worker_connected : EventKind::worker_disconnected;
}

}  // namespace

// --- changes --------------------------------------------------------------------------------------------------------

Status RunStore::Impl::apply_one(const WorkerHello& change, Applied& applied) {
  const WorkerRow& worker = change.worker;
  ASSAY_TRY(db.run(
      "INSERT INTO workers (id, host, boot_id, pid, start_ticks, state, last_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) "
      "ON CONFLICT (id) DO UPDATE SET host = ?2, boot_id = ?3, pid = ?4, start_ticks = ?5, state = ?6, last_seen = ?7",
      worker.id, worker.host, worker.boot_id, worker.pid, worker.start_ticks, to_string(worker.state),
      worker.last_seen));

  std::vector<std::string> gone;
  ASSAY_ASSIGN(auto known, db.prepare("SELECT id FROM devices WHERE worker_id = ? AND id NOT IN "
                                      "(SELECT device_id FROM allocations)"));
  known.bind(worker.id);
  while (true) {
    ASSAY_ASSIGN(bool row, known.step());
    if (!row) break;
    bool named = std::any_of(change.devices.begin(), change.devices.end(),
                             [&](const DeviceRow& device) { return device.id == known.text(0); });
    if (!named) gone.push_back(known.text(0));
  }
  for (const std::string& id : gone) ASSAY_TRY(db.run("DELETE FROM devices WHERE id = ?", id));
  for (const DeviceRow& device : change.devices) {
    ASSAY_TRY(
        db.run("INSERT INTO devices (id, worker_id, kind, name, memory_bytes) VALUES (?1, ?2, ?3, ?4, ?5) "
               "ON CONFLICT (id) DO UPDATE SET worker_id = ?2, kind = ?3, name = ?4, memory_bytes = ?5",
               device.id, worker.id, to_string(device.kind), device.name, device.memory_bytes));
    ASSAY_TRY(apply_one(DeviceChange{device.id, device.drained_by}, applied));
  }
  EventRow event;
  event.kind = kind_of(worker.state);
  event.to_state = to_string(worker.state);
  event.cause = fmt::format("worker {} on {} (pid {}) with {} devices", worker.id, worker.host, worker.pid,
                            change.devices.size());
  return write_event(event);
}

Status RunStore::Impl::apply_one(const WorkerChange& change, Applied&) {
  ASSAY_ASSIGN(auto found, db.prepare("SELECT state FROM workers WHERE id = ?"));
  ASSAY_ASSIGN(bool row, found.bind(change.worker_id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no worker {}", change.worker_id)};
  EventRow event;
  event.kind = kind_of(change.state);
  event.from_state = found.text(0);
  event.to_state = to_string(change.state);
  event.cause = change.cause;
  ASSAY_TRY(db.run("UPDATE workers SET state = ?, last_seen = ? WHERE id = ?", to_string(change.state), now(),
                   change.worker_id));
  return write_event(event);
}

Status RunStore::Impl::apply_one(const DeviceChange& change, Applied&) {
  ASSAY_ASSIGN(auto found, db.prepare("SELECT drained_by FROM devices WHERE id = ?"));
  ASSAY_ASSIGN(bool row, found.bind(change.device_id).step());
  if (!row) return Error{ErrorCode::not_found, fmt::format("there is no device {}", change.device_id)};
  const std::string before = found.text(0);
  if (before == change.drained_by) return {};
  ASSAY_TRY(db.run("UPDATE devices SET drained_by = ? WHERE id = ?", change.drained_by, change.device_id));
  const bool drained = !change.drained_by.empty();
  if (drained != before.empty()) return {};
  EventRow event;
  event.kind = drained ? EventKind::device_drained : EventKind::device_undrained;
  event.from_state = to_string(drained ? DeviceState::free : DeviceState::drained);
  event.to_state = to_string(drained ? DeviceState::drained : DeviceState::free);
  event.cause = drained ? fmt::format("{}: used by {}", change.device_id, change.drained_by)
                        : fmt::format("{}: nobody else uses it any longer", change.device_id);
  return write_event(event);
}

Status RunStore::Impl::apply_one(const SettingChange& change, Applied&) {
  ASSAY_ASSIGN(std::string old, setting(change.key));
  ASSAY_TRY(db.run("INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                   change.key, change.value));
  bool held = change.value == "1";
  if (change.key != queue_held_key || held == (old == "1")) return {};
  EventRow event;
  event.kind = held ? EventKind::queue_held : EventKind::queue_released;
  event.from_state = held ? "released" : "held";
  event.to_state = held ? "held" : "released";
  event.cause = change.cause;
  return write_event(event);
}

Status RunStore::Impl::apply_one(const RequestResult& change, Applied&) {
  if (change.request_id.empty()) return Error{ErrorCode::invalid_argument, "a remembered request needs an id"};
  ASSAY_TRY(db.run("DELETE FROM requests WHERE expires_at <= ?", now()));
  ASSAY_TRY(
      db.run("INSERT INTO requests (id, method, expires_at, result) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
             change.request_id, change.method, now() + limits::request_id_keep_ms, change.result));
  if (db.rows_changed() == 1) return {};
  return Error{ErrorCode::aborted, fmt::format("request {} was done meanwhile", change.request_id)};
}

// --- reads ---------------------------------------------------------------------------------------------------------

Result<std::string> RunStore::Impl::setting(std::string_view key) {
  ASSAY_ASSIGN(auto found, db.prepare("SELECT value FROM settings WHERE key = ?"));
  ASSAY_ASSIGN(bool row, found.bind(key).step());
  return row ? found.text(0) : std::string();
}

Result<bool> RunStore::Impl::held() {
  ASSAY_ASSIGN(int64_t rows, db.integer("SELECT count(*) FROM settings WHERE key = ? AND value = '1'", queue_held_key));
  return rows != 0;
}

Result<std::optional<std::string>> RunStore::Impl::find_request(const std::string& request_id,
                                                                const std::string& method) {
  ASSAY_ASSIGN(auto found, db.prepare("SELECT method, result FROM requests WHERE id = ? AND expires_at > ?"));
  ASSAY_ASSIGN(bool row, found.bind(request_id, now()).step());
  if (!row) return std::optional<std::string>();
  if (found.text(0) != method) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("request id {} was used for {} before: every call needs an id of its own", request_id,
                             found.text(0))};
  }
  return std::optional<std::string>(found.text(1));
}

Result<std::string> RunStore::setting(const std::string& key) {
  std::lock_guard lock(impl_->mutex);
  return impl_->setting(key);
}

Result<bool> RunStore::queue_held() {
  std::lock_guard lock(impl_->mutex);
  return impl_->held();
}

SettingChange RunStore::hold_queue(bool held, std::string cause) {
  return SettingChange{std::string(queue_held_key), held ? "1" : "0", std::move(cause)};
}

Result<std::optional<std::string>> RunStore::find_request(const std::string& request_id, const std::string& method) {
  std::lock_guard lock(impl_->mutex);
  return impl_->find_request(request_id, method);
}

Result<int64_t> RunStore::last_event_id() {
  std::lock_guard lock(impl_->mutex);
  return impl_->last_event_id();
}

Result<std::vector<EventRow>> RunStore::events_after(int64_t after_id, int64_t limit, int64_t run_id) {
  std::lock_guard lock(impl_->mutex);
  constexpr std::string_view columns =
      "SELECT id, at, experiment_id, run_id, attempt_id, kind, from_state, to_state, cause FROM events WHERE id > ?1 ";
  ASSAY_ASSIGN(auto rows,
               impl_->db.prepare(fmt::format("{}{} ORDER BY id LIMIT ?3", columns,
                                             run_id == 0 ? "AND ?2 = 0" : "AND run_id <> 0 AND run_id = ?2")));
  rows.bind(after_id, run_id, limit == 0 ? -1 : limit);
  std::vector<EventRow> events;
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return events;
    ASSAY_ASSIGN(const EventKind kind, read_word<EventKind>(rows, 5, "events.kind"));
    events.push_back({rows.integer(0), rows.integer(1), rows.integer(2), rows.integer(3), rows.integer(4), kind,
                      rows.text(6), rows.text(7), rows.text(8)});
  }
}

Result<std::vector<WorkerRow>> RunStore::list_workers() {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(
                              "SELECT id, host, boot_id, pid, start_ticks, state, last_seen FROM workers ORDER BY id"));
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

Result<std::vector<DeviceListing>> RunStore::list_devices() {
  std::lock_guard lock(impl_->mutex);
  ASSAY_ASSIGN(
      auto rows,
      impl_->db.prepare("SELECT d.id, d.worker_id, d.kind, d.name, d.memory_bytes, "
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
