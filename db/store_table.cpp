#include "db/store_table.h"

#include <fmt/core.h>

#include "db/run_rows.h"

namespace assay {

Result<std::string> StoreTable::store_id() const {
  ASSAY_ASSIGN(auto id, db_.prepare("SELECT store_id FROM store"));
  ASSAY_ASSIGN(bool row, id.bind().step());
  if (!row) return Error{ErrorCode::data_loss, fmt::format("{} is damaged: table store is empty", db_.path())};
  return id.text(0);
}

Result<int64_t> StoreTable::next_lease_epoch() {
  ASSAY_TRY(db_.run("UPDATE store SET lease_epoch = lease_epoch + 1"));
  return db_.integer("SELECT lease_epoch FROM store");
}

Result<QueueMark> StoreTable::mark() const {
  return read_mark(db_, "SELECT name, seq FROM sqlite_sequence UNION ALL SELECT 'lease_epoch', lease_epoch FROM store");
}

Status StoreTable::move_past(const QueueMark& mark) {
  for (const auto& [counter, greatest] : mark) {
    if (counter == "lease_epoch") {
      ASSAY_TRY(db_.run("UPDATE store SET lease_epoch = max(lease_epoch, ?)", greatest));
      continue;
    }
    ASSAY_TRY(db_.run("UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", counter, greatest));
    // A table that has never had a row has none here either.
    if (db_.rows_changed() == 0) ASSAY_TRY(db_.run("INSERT INTO sqlite_sequence VALUES (?, ?)", counter, greatest));
  }
  return {};
}

}  // namespace assay
