#include "db/migrations.h"

#include <fmt/core.h>

#include <array>

namespace assay {

// db/<name>.sql, embedded by CMake.
extern const char schema_sql[];
extern const char unstarted_attempts_sql[];
extern const char known_words_sql[];
extern const char metrics_schema_sql[];

namespace {

constexpr std::array queue_migrations = {
    Migration{1, "initial queue", schema_sql},
    // Who else computes on a drained device. A device on which nobody does is not drained.
    Migration{2, "users of drained devices",
              "ALTER TABLE devices ADD COLUMN drained_by TEXT NOT NULL DEFAULT '';"
              "ALTER TABLE devices DROP COLUMN drained;"},
    // The home can be moved. Until here log_path was absolute; the row itself tells how it ends, so this holds for
    // paths of a home that has been moved before, too.
    Migration{3, "log paths relative to the home",
              "DROP TRIGGER attempts_end_for_good;"
              "UPDATE attempts AS a SET log_path = t.path FROM ("
              "  SELECT l.id, "
              "  'runs/' || e.name || '/' || e.tag || '/' || r.name || '/attempt' || l.n || '/trainer.log' AS path "
              "  FROM attempts l JOIN runs r ON r.id = l.run_id JOIN experiments e ON e.id = r.experiment_id) t "
              "WHERE t.id = a.id AND substr(a.log_path, -length(t.path) - 1) = '/' || t.path;"
              "CREATE TRIGGER attempts_end_for_good BEFORE UPDATE ON attempts WHEN OLD.state = 'ended' BEGIN "
              "SELECT RAISE(ABORT, 'an ended attempt is never changed'); END;"},
    Migration{4, "attempts that never started", unstarted_attempts_sql},
    // Attempts that may have been leased by a program that gave no keys (RunStore::earlier_keys).
    Migration{5, "attempts that may have no key",
              "INSERT INTO settings SELECT 'last_attempt_without_key', seq FROM sqlite_sequence "
              "WHERE name = 'attempts' AND seq > 0;"},
    Migration{6, "why attempts stop, and words without lists", known_words_sql}};
constexpr std::array metrics_migrations = {
    Migration{1, "initial metrics", metrics_schema_sql},
    // How far queue.db has come, so that an older copy of it is noticed (db/store_pair.h). `counter` is a table of
    // queue.db whose ids are never used twice, or lease_epoch; `greatest` the greatest number it has given out. What
    // was written before is known from the attempts alone; epochs were given out with them, one each.
    Migration{2, "how far the queue has come",
              "CREATE TABLE queue_mark (counter TEXT PRIMARY KEY, greatest INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
              "INSERT INTO queue_mark SELECT 'attempts', max(attempt_id) FROM progress HAVING max(attempt_id) > 0;"
              "INSERT INTO queue_mark SELECT 'lease_epoch', greatest FROM queue_mark WHERE counter = 'attempts';"},
    Migration{3, "tokens of a step", "ALTER TABLE steps ADD COLUMN tokens INTEGER;"},
    Migration{4, "flops of a step", "ALTER TABLE steps ADD COLUMN flops REAL;"}};

Status refuse_foreign(Database& database, const Schema& schema, int64_t version) {
  ASSAY_ASSIGN(int64_t application_id, database.integer("PRAGMA application_id"));
  ASSAY_ASSIGN(int64_t objects, database.integer("SELECT count(*) FROM sqlite_schema"));
  bool empty = version == 0 && application_id == 0 && objects == 0;
  if (empty || application_id == schema.application_id) return {};
  return Error{ErrorCode::failed_precondition,
               fmt::format("{}: this SQLite database is not an Assay {} database; move it away or choose another home",
                           database.path(), schema.what)};
}

Status refuse_newer(Database& database, const Schema& schema, int64_t version) {
  int newest = schema.migrations.back().version;
  if (version <= newest) return {};
  ASSAY_ASSIGN(auto statement, database.prepare("SELECT name FROM migrations WHERE version = ?"));
  ASSAY_ASSIGN(bool row, statement.bind(version).step());
  return Error{
      ErrorCode::failed_precondition,
      fmt::format("{}: written by a newer Assay: it has migration {} \"{}\", and this program knows {} \"{}\" as "
                  "the last; use the newer program",
                  database.path(), version, row ? statement.text(0) : "unnamed", newest,
                  schema.migrations.back().name)};
}

Status run_one(Database& database, const Schema& schema, const Migration& migration, int64_t now_ms) {
  ASSAY_ASSIGN(auto transaction, Transaction::begin(database));
  ASSAY_TRY(
      database.run_script("CREATE TABLE IF NOT EXISTS migrations ("
                          "version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"));
  ASSAY_TRY(database.run_script(migration.sql));
  ASSAY_TRY(database.run("INSERT INTO migrations VALUES (?, ?, ?)", migration.version, migration.name, now_ms));
  ASSAY_TRY(database.run_script(fmt::format("PRAGMA user_version = {}", migration.version).c_str()));
  ASSAY_TRY(database.run_script(fmt::format("PRAGMA application_id = {}", schema.application_id).c_str()));
  return transaction.commit();
}

}  // namespace

const Schema& queue_schema() {
  static const Schema schema{"queue", 0x41535951 /* "ASYQ" */, queue_migrations};
  return schema;
}

const Schema& metrics_schema() {
  static const Schema schema{"metrics", 0x4153594D /* "ASYM" */, metrics_migrations};
  return schema;
}

Status migrate(Database& database, const Schema& schema, int64_t now_ms) {
  ASSAY_ASSIGN(int64_t version, database.integer("PRAGMA user_version"));
  ASSAY_TRY(refuse_foreign(database, schema, version));
  ASSAY_TRY(refuse_newer(database, schema, version));
  for (const Migration& migration : schema.migrations) {
    if (migration.version <= version) continue;
    if (auto status = run_one(database, schema, migration, now_ms); !status.ok()) {
      return Error{status.error().code,
                   fmt::format("migration {} \"{}\": {}", migration.version, migration.name, status.error().message)};
    }
  }
  return {};
}

}  // namespace assay
