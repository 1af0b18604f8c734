#include <fmt/core.h>

#include "base/limits.h"
#include "db/file_check.h"
#include "db/sqlite.h"

namespace assay {

Result<Database> Database::open(const std::string& path, Synchronous synchronous) {
  ASSAY_TRY(prepare_database_file(path));
  sqlite3* handle = nullptr;
  // NOMUTEX: the stores hold their own lock around every use.
  int code = sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                             nullptr);
  Database database(path, handle);
  if (code != SQLITE_OK) {
    if (handle == nullptr) return Error{ErrorCode::resource_exhausted, fmt::format("{}: out of memory", path)};
    return database.failure(code, "open");
  }
  ASSAY_TRY(database.set_up(synchronous));
  return database;
}

Status Database::set_up(Synchronous synchronous) {
  sqlite3_busy_timeout(handle_.get(), limits::sqlite_busy_ms);
  // Text from outside never becomes SQL, and a hostile file cannot use the schema to run functions.
  sqlite3_db_config(handle_.get(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle_.get(), SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  // The first statement reads the header: "not a database" and "shorter than its header says" come from here.
  ASSAY_ASSIGN(auto journal, prepare("PRAGMA journal_mode = WAL"));
  ASSAY_ASSIGN(bool row, journal.bind().step());
  if (!row || journal.text(0) != "wal") {
    return Error{ErrorCode::failed_precondition,
                 fmt::format("{}: the file system does not support SQLite's write-ahead log; put ASSAY_HOME on a local "
                             "disk",
                             path_)};
  }
  ASSAY_TRY(exec(synchronous == Synchronous::full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL"));
  ASSAY_TRY(exec("PRAGMA foreign_keys = ON"));
  ASSAY_TRY(exec("PRAGMA temp_store = MEMORY"));  // sorts never meet a full /tmp
  ASSAY_TRY(exec(fmt::format("PRAGMA cache_size = -{}", limits::sqlite_cache_bytes / 1024).c_str()));
  ASSAY_TRY(exec(fmt::format("PRAGMA wal_autocheckpoint = {}", limits::sqlite_wal_pages).c_str()));
  return exec(fmt::format("PRAGMA journal_size_limit = {}", limits::sqlite_wal_kept_bytes).c_str());
}

}  // namespace assay
