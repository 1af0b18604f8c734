// SQLite in RAII form, private to db/. One connection, used by one thread at a time (the stores hold the lock).
//
// Failures are Errors that name the file, the statement and SQLite's extended code. A failed commit, or a full disk,
// I/O error or damaged page met inside a write transaction, stops the database: begin() refuses from then on.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

class Database;

// A prepared statement on loan from its database's cache; goes back, reset, when destroyed. Must not outlive the
// database. A failed bind is reported by the next step().
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Binds ?1, ?2, ... in order after clearing the last run: integers, bools, doubles (NaN becomes NULL), text and
  // optionals of these (nothing = NULL). Text must stay alive until the statement has run.
  template <class... Values>
  Statement& bind(const Values&... values) {
    reset();
    (add(values), ...);
    return *this;
  }
  // Binds the next one after those of bind(), where a list says how many there are.
  template <class Value>
  Statement& add(const Value& value) {
    bind_one(++bound_, value);
    return *this;
  }
  // True = a row is there to be read; false = done.
  Result<bool> step();
  // Runs to its end, dropping any rows.
  Status run();

  bool is_null(int column) const;
  int64_t integer(int column) const;   // NULL = 0
  double real(int column) const;       // NULL = NaN
  std::string text(int column) const;  // NULL = ""

 private:
  friend class Database;
  Statement(Database* database, sqlite3_stmt* handle) : database_(database), handle_(handle) {}
  void reset();
  void bind_integer(int index, int64_t value);
  void bind_real(int index, double value);
  void bind_text(int index, std::string_view value);
  void bind_null(int index);
  void note(int code);

  template <class T>
  void bind_one(int index, const T& value) {
    if constexpr (std::is_integral_v<T>) {
      bind_integer(index, static_cast<int64_t>(value));
    } else if constexpr (std::is_floating_point_v<T>) {
      bind_real(index, value);
    } else {
      bind_text(index, value);
    }
  }
  template <class T>
  void bind_one(int index, const std::optional<T>& value) {
    value ? bind_one(index, *value) : bind_null(index);
  }

  Database* database_;
  sqlite3_stmt* handle_;
  int bind_code_ = SQLITE_OK;
  int bound_ = 0;
};

class Database {
 public:
  enum class Synchronous { normal, full };

  // Opens or creates `path` with mode 0600, WAL, foreign keys, busy timeout. Refuses folders, files that cannot be
  // written, network file systems, files that are no database and files cut short.
  static Result<Database> open(const std::string& path, Synchronous synchronous);
  Database(Database&&) noexcept = default;
  Database& operator=(Database&&) = delete;
  ~Database();

  // `sql` is one statement; its compiled form is kept for the next call with the same text.
  Result<Statement> prepare(std::string_view sql);
  // Prepares, binds and runs a statement that returns no rows.
  template <class... Values>
  Status run(std::string_view sql, const Values&... values) {
    auto statement = prepare(sql);
    if (!statement.ok()) return statement.error();
    return statement->bind(values...).run();
  }
  // The first column of the first row; 0 when there is no row.
  template <class... Values>
  Result<int64_t> integer(std::string_view sql, const Values&... values) {
    auto statement = prepare(sql);
    if (!statement.ok()) return statement.error();
    auto row = statement->bind(values...).step();
    if (!row.ok()) return row.error();
    return *row ? statement->integer(0) : 0;
  }
  // Every commit so far is on disk when this returns success, with Synchronous::normal too. A failure stops the
  // database: the kernel may have dropped what it could not write.
  Status sync();
  // Any number of statements without parameters: schemas and migrations.
  Status run_script(const char* sql);

  int64_t last_insert_id() const { return sqlite3_last_insert_rowid(handle_.get()); }
  int64_t rows_changed() const { return sqlite3_changes64(handle_.get()); }
  const std::string& path() const { return path_; }
  // The error that stopped the writer, if any.
  const std::optional<Error>& stopped() const { return stopped_; }
  // PRAGMA quick_check of one table, or of the whole file when `table` is empty. data_loss says what is wrong.
  Status quick_check(std::string_view table);

 private:
  friend class Statement;
  friend class Transaction;
  Database(std::string path, sqlite3* handle) : path_(std::move(path)), handle_(handle) {}
  Status set_up(Synchronous synchronous);
  Status exec(const char* sql);
  Error failure(int extended_code, std::string_view sql);
  void stop(const Error& cause);
  void give_back(sqlite3_stmt* handle);

  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::string path_;
  unique_handle<sqlite3*, sqlite3_close> handle_;
  std::unordered_map<std::string, sqlite3_stmt*, TextHash, std::equal_to<>> cache_;
  std::optional<Error> stopped_;
  bool writing_ = false;
};

// BEGIN IMMEDIATE; rolls back unless committed.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status commit();

  // Runs `body` (a callable returning Status) inside a savepoint: when it fails its writes alone are undone and its
  // error is returned in `inner`; the outer Status fails only when the whole transaction is lost.
  template <class Body>
  Status attempt(Body&& body, Status& inner) {
    if (auto status = save(); !status.ok()) return status;
    inner = body();
    return inner.ok() ? release() : undo();
  }

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Status save();
  Status release();
  Status undo();
  Database* database_;
};

}  // namespace assay
