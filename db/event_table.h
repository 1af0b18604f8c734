// Table events of queue.db: the feed. Rows are only added, in commit order, and an id is never used twice, so that what
// follows an id is complete. A part of RunStore.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "db/changes.h"
#include "db/sqlite.h"

namespace assay {

class EventTable {
 public:
  EventTable(Database& db, const Clock& clock) : db_(db), clock_(clock) {}

  Status write(const EventRow& event);  // at the time now; event.id and event.at are not read
  Status apply(const EventNote& note);

  // Events with id > after_id, oldest first; limit 0 = all, run_id 0 = any.
  Result<std::vector<EventRow>> after(int64_t after_id, int64_t limit, int64_t run_id) const;
  Result<int64_t> last_id() const;

 private:
  Database& db_;
  const Clock& clock_;
};

}  // namespace assay
