#include "db/setting_table.h"

namespace assay {

namespace {

constexpr std::string_view queue_held_key = "queue_held";
constexpr std::string_view last_attempt_without_key_key = "last_attempt_without_key";

}  // namespace

SettingChange SettingTable::hold_queue(bool held, std::string cause) {
  return SettingChange{std::string(queue_held_key), held ? "1" : "0", std::move(cause)};
}

Status SettingTable::apply(const SettingChange& change) {
  ASSAY_ASSIGN(std::string old, get(change.key));
  ASSAY_TRY(db_.run("INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                    change.key, change.value));
  bool held = change.value == "1";
  if (change.key != queue_held_key || held == (old == "1")) return {};
  EventRow event;
  event.kind = held ? EventKind::queue_held : EventKind::queue_released;
  event.from_state = held ? "released" : "held";
  event.to_state = held ? "held" : "released";
  event.cause = change.cause;
  return events_.write(event);
}

Result<std::string> SettingTable::get(std::string_view key) const {
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT value FROM settings WHERE key = ?"));
  ASSAY_ASSIGN(bool row, found.bind(key).step());
  return row ? found.text(0) : std::string();
}

Result<bool> SettingTable::queue_held() const {
  ASSAY_ASSIGN(int64_t rows,
               db_.integer("SELECT count(*) FROM settings WHERE key = ? AND value = '1'", queue_held_key));
  return rows != 0;
}

Result<int64_t> SettingTable::last_attempt_without_key() const {
  return db_.integer("SELECT CAST(value AS INTEGER) FROM settings WHERE key = ?", last_attempt_without_key_key);
}

}  // namespace assay
