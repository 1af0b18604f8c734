#include "db/sqlite.h"

#include <fmt/core.h>

#include <limits>

#include "base/log.h"

namespace assay {

// --- Statement ----------------------------------------------------------------------------------------------------

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      handle_(std::exchange(other.handle_, nullptr)),
      bind_code_(other.bind_code_),
      bound_(other.bound_) {}

Statement::~Statement() {
  if (handle_ != nullptr) database_->give_back(handle_);
}

void Statement::reset() {
  sqlite3_reset(handle_);  // repeats the last step's error, which step() has reported
  bind_code_ = SQLITE_OK;
  bound_ = 0;
}

void Statement::note(int code) {
  if (bind_code_ == SQLITE_OK) bind_code_ = code;
}
void Statement::bind_integer(int index, int64_t value) {
  note(sqlite3_bind_int64(handle_, index, value));
}
void Statement::bind_real(int index, double value) {
  note(sqlite3_bind_double(handle_, index, value));
}
void Statement::bind_null(int index) {
  note(sqlite3_bind_null(handle_, index));
}
void Statement::bind_text(int index, std::string_view value) {
  // A null pointer would bind NULL, and an empty view may have one.
  const char* data = value.data() != nullptr ? value.data() : "";
  note(sqlite3_bind_text64(handle_, index, data, value.size(), SQLITE_STATIC, SQLITE_UTF8));
}

Result<bool> Statement::step() {
  if (bind_code_ != SQLITE_OK) return database_->failure(bind_code_, sqlite3_sql(handle_));
  int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->failure(sqlite3_extended_errcode(database_->handle_.get()), sqlite3_sql(handle_));
}

Status Statement::run() {
  while (true) {
    auto row = step();
    if (!row.ok()) return row.error();
    if (!*row) break;
  }
  sqlite3_reset(handle_);
  return {};
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(handle_, column) == SQLITE_NULL;
}
int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(handle_, column);
}
double Statement::real(int column) const {
  return is_null(column) ? std::numeric_limits<double>::quiet_NaN() : sqlite3_column_double(handle_, column);
}
std::string Statement::text(int column) const {
  auto* data = reinterpret_cast<const char*>(sqlite3_column_text(handle_, column));
  return data != nullptr ? std::string(data, static_cast<size_t>(sqlite3_column_bytes(handle_, column))) : "";
}

// --- Database -----------------------------------------------------------------------------------------------------

Database::~Database() {
  for (auto& [sql, statement] : cache_) sqlite3_finalize(statement);
}

Result<Statement> Database::prepare(std::string_view sql) {
  if (auto found = cache_.find(sql); found != cache_.end()) {
    sqlite3_stmt* handle = found->second;
    cache_.erase(found);
    return Statement(this, handle);
  }
  sqlite3_stmt* handle = nullptr;
  int code = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                &handle, nullptr);
  if (code != SQLITE_OK) return failure(sqlite3_extended_errcode(handle_.get()), sql);
  return Statement(this, handle);
}

void Database::give_back(sqlite3_stmt* handle) {
  sqlite3_reset(handle);
  sqlite3_clear_bindings(handle);
  // Two loans of one text (a query inside its own loop) leave one copy in the cache.
  if (!cache_.emplace(sqlite3_sql(handle), handle).second) sqlite3_finalize(handle);
}

Status Database::exec(const char* sql) {
  if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return failure(sqlite3_extended_errcode(handle_.get()), sql);
  }
  return {};
}

Status Database::run_script(const char* sql) {
  return exec(sql);
}

Status Database::quick_check(std::string_view table) {
  std::string sql = table.empty() ? "PRAGMA quick_check(1)" : fmt::format("PRAGMA quick_check({})", table);
  ASSAY_ASSIGN(auto statement, prepare(sql));
  ASSAY_ASSIGN(bool row, statement.bind().step());
  if (row && statement.text(0) == "ok") return {};
  return Error{
      ErrorCode::data_loss,
      fmt::format("{} is damaged: {}; stop assayd, keep a copy of the file, and restore a backup or recover it "
                  "with `sqlite3 {} .recover`",
                  path_, row ? statement.text(0) : "no answer", path_)};
}

// --- errors -------------------------------------------------------------------------------------------------------

namespace {

struct Meaning {
  ErrorCode code;
  const char* text;  // after "<path>: "
};

Meaning meaning_of(int primary) {
  switch (primary) {
    case SQLITE_FULL:
      return {ErrorCode::resource_exhausted, "the disk is full; free space on its file system, then restart assayd"};
    case SQLITE_IOERR:
      return {ErrorCode::unavailable,
              "reading or writing failed; look for disk errors with `dmesg`, then restart assayd"};
    case SQLITE_CORRUPT:
      return {ErrorCode::data_loss,
              "the database is damaged; stop assayd, keep a copy of the file, and restore a backup or recover it with "
              "`sqlite3 FILE .recover`"};
    case SQLITE_NOTADB:
      return {ErrorCode::data_loss, "the file is not an Assay database, or its first page is damaged"};
    case SQLITE_READONLY:
      return {ErrorCode::permission_denied,
              "the database cannot be written; check who owns the file and its folder, "
              "and that the file system is not mounted read-only"};
    case SQLITE_CANTOPEN:
      return {ErrorCode::permission_denied,
              "the database or its -wal or -shm file cannot be opened; check who owns them and their folder"};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {ErrorCode::unavailable, "another program holds a lock on the database; end it and try again"};
    case SQLITE_CONSTRAINT:
      return {ErrorCode::failed_precondition, "the change would break an invariant of the store"};
    case SQLITE_NOMEM:
      return {ErrorCode::resource_exhausted, "out of memory"};
    case SQLITE_TOOBIG:
      return {ErrorCode::resource_exhausted, "a value is too long"};
    default:
      return {ErrorCode::internal, "the statement failed"};
  }
}

// The start of a statement on one line: enough to find it.
std::string one_line(std::string_view sql) {
  std::string out;
  for (char c : sql.substr(0, 160)) {
    bool space = c == ' ' || c == '\n';
    if (!space) out += c;
    if (space && !out.empty() && out.back() != ' ') out += ' ';
  }
  return sql.size() > 160 ? out + "..." : out;
}

}  // namespace

Error Database::failure(int extended_code, std::string_view sql) {
  int primary = extended_code & 0xff;
  Meaning meaning = meaning_of(primary);
  std::string detail = sqlite3_errmsg(handle_.get());
  Error error{meaning.code, fmt::format("{}: {} [{}, SQLite code {}, in: {}]", path_, meaning.text, detail,
                                        extended_code, one_line(sql))};
  bool storage = primary == SQLITE_FULL || primary == SQLITE_IOERR || primary == SQLITE_CORRUPT ||
                 primary == SQLITE_NOTADB || primary == SQLITE_READONLY;
  if (writing_ && storage) stop(error);
  return error;
}

Status Database::sync() {
  if (stopped_) return *stopped_;
  sqlite3_file* log = nullptr;
  int code = sqlite3_file_control(handle_.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, static_cast<void*>(&log));
  if (code == SQLITE_OK && log != nullptr && log->pMethods != nullptr)
    code = log->pMethods->xSync(log, SQLITE_SYNC_NORMAL);
  if (code == SQLITE_OK) return {};
  Error error{ErrorCode::unavailable, fmt::format("{}: {} [{}, SQLite code {}, in: sync of the write-ahead log]", path_,
                                                  meaning_of(SQLITE_IOERR).text, sqlite3_errstr(code), code)};
  stop(error);
  return error;
}

void Database::stop(const Error& cause) {
  if (stopped_) return;
  stopped_ = cause;
  log::error("writes to {} are stopped: {}", path_, cause.message);
}

// --- Transaction --------------------------------------------------------------------------------------------------

Result<Transaction> Transaction::begin(Database& database) {
  if (database.stopped_) {
    return Error{database.stopped_->code,
                 "nothing is written any more since an earlier write failed: " + database.stopped_->message};
  }
  database.writing_ = true;
  if (auto status = database.exec("BEGIN IMMEDIATE"); !status.ok()) {
    database.writing_ = false;
    return status.error();
  }
  return Transaction(database);
}

Transaction::~Transaction() {
  if (database_ == nullptr) return;
  // SQLite has rolled back by itself after some errors (disk full, I/O).
  if (sqlite3_get_autocommit(database_->handle_.get()) == 0) {
    if (auto status = database_->exec("ROLLBACK"); !status.ok()) database_->stop(status.error());
  }
  database_->writing_ = false;
}

Status Transaction::commit() {
  Status status = database_->exec("COMMIT");
  // Whether a failed commit reached the disk is unknown: stop rather than build on it.
  if (!status.ok()) {
    database_->stop(status.error());
    return status;
  }
  std::exchange(database_, nullptr)->writing_ = false;
  return {};
}

Status Transaction::save() {
  return database_->exec("SAVEPOINT part");
}
Status Transaction::release() {
  return database_->exec("RELEASE part");
}
Status Transaction::undo() {
  if (database_->stopped_) return *database_->stopped_;
  ASSAY_TRY(database_->exec("ROLLBACK TO part"));
  return release();
}

}  // namespace assay
