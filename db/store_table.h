// Table store of queue.db, and SQLite's counters of the tables whose ids are never used twice: which queue this is, and
// how far it has come. No number that was given out is given out again. A part of RunStore.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "db/sqlite.h"
#include "db/types.h"

namespace assay {

class StoreTable {
 public:
  explicit StoreTable(Database& db) : db_(db) {}

  Result<std::string> store_id() const;
  Result<int64_t> next_lease_epoch();
  // As RunStore::mark and, without the event, RunStore::move_past.
  Result<QueueMark> mark() const;
  Status move_past(const QueueMark& mark);

 private:
  Database& db_;
};

}  // namespace assay
