// Tables workers, devices and allocations of queue.db. A device belongs to the worker that named it last, and is held
// by one live attempt at most. Whether it is busy is not stored: allocations say so, and the end of an attempt frees
// its devices (a trigger of db/schema.sql). A part of RunStore.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "db/changes.h"
#include "db/event_table.h"
#include "db/sqlite.h"

namespace assay {

class FleetTables {
 public:
  FleetTables(Database& db, const Clock& clock, EventTable& events) : db_(db), clock_(clock), events_(events) {}

  Status apply(const WorkerHello& change);
  Status apply(const WorkerChange& change);
  Status apply(const DeviceChange& change);
  // Gives the devices to a new attempt. Aborted, with some of them given, when one cannot be had: the caller's
  // transaction is undone.
  Status allocate(const AttemptRow& attempt, const std::vector<std::string>& device_ids);

  Result<bool> has_worker(const std::string& worker_id) const;
  Result<std::vector<WorkerRow>> workers() const;                      // by id
  Result<std::vector<DeviceListing>> devices() const;                  // by host, then id
  Result<std::vector<std::string>> held_by(int64_t attempt_id) const;  // device ids, sorted

 private:
  Database& db_;
  const Clock& clock_;
  EventTable& events_;
};

}  // namespace assay
