// Table settings of queue.db: a value for a key, and the keys that the store itself knows. A part of RunStore.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "db/changes.h"
#include "db/event_table.h"
#include "db/sqlite.h"

namespace assay {

class SettingTable {
 public:
  SettingTable(Database& db, EventTable& events) : db_(db), events_(events) {}

  static SettingChange hold_queue(bool held, std::string cause);
  // An event is written only where the queue's hold changes.
  Status apply(const SettingChange& change);

  Result<std::string> get(std::string_view key) const;  // "" when never set
  Result<bool> queue_held() const;
  // Up to this one attempts may have been leased by a program that gave no keys; written once, by migration 5.
  Result<int64_t> last_attempt_without_key() const;

 private:
  Database& db_;
  EventTable& events_;
};

}  // namespace assay
