#include "db/event_table.h"

#include <fmt/core.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "db/run_rows.h"

namespace assay {

Status EventTable::write(const EventRow& event) {
  return db_.run(
      "INSERT INTO events (at, experiment_id, run_id, attempt_id, kind, from_state, to_state, cause) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      clock_.unix_ms(), event.experiment_id, event.run_id, event.attempt_id, to_string(event.kind), event.from_state,
      event.to_state, cut_end(event.cause, limits::error_chars));
}

Status EventTable::apply(const EventNote& note) {
  EventRow event;
  event.kind = note.kind;
  event.cause = note.cause;
  return write(event);
}

Result<std::vector<EventRow>> EventTable::after(int64_t after_id, int64_t limit, int64_t run_id) const {
  constexpr std::string_view columns =
      "SELECT id, at, experiment_id, run_id, attempt_id, kind, from_state, to_state, cause FROM events WHERE id > ?1 ";
  ASSAY_ASSIGN(auto rows, db_.prepare(fmt::format("{}{} ORDER BY id LIMIT ?3", columns,
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

Result<int64_t> EventTable::last_id() const {
  return db_.integer("SELECT coalesce(max(id), 0) FROM events");
}

}  // namespace assay
