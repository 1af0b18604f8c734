// Status and Result: how base, spec, db, daemon, worker and cli report failure (the engine throws; see
// engine/ops/error.h).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace assay {

// Broad classes of failure. They map one to one onto gRPC codes at the service boundary and onto exit codes in the CLI.
enum class ErrorCode {
  invalid_argument,     // the input is wrong; the caller must change it
  not_found,            // the named thing does not exist
  already_exists,       // the named thing exists and the call would create it
  failed_precondition,  // the input is right but the state does not allow it
  resource_exhausted,   // a limit in base/limits.h, memory or disk
  permission_denied,
  unavailable,  // the other program is not there; trying again later may work
  data_loss,    // stored data is damaged
  aborted,      // lost a race (compare-and-swap, stale lease epoch)
  internal,
};

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;  // what was wrong, where, and what to do next
};

// Success or an Error. `[[nodiscard]]`: an ignored Status is a compile error under -Werror.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design, `return Error{...};`
  bool ok() const { return !error_.has_value(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

// A value or an Error.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  bool ok() const { return state_.index() == 0; }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  const Error& error() const { return std::get<1>(state_); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace assay

// Propagate a failure: `ASSAY_TRY(store.commit());`
#define ASSAY_TRY(expr)                                                                 \
  do {                                                                                  \
    if (auto assay_status_ = (expr); !assay_status_.ok()) return assay_status_.error(); \
  } while (0)

#define ASSAY_CONCAT_(a, b) a##b
#define ASSAY_CONCAT(a, b) ASSAY_CONCAT_(a, b)
// Bind a value or propagate: `ASSAY_ASSIGN(auto text, read_file(path));`
#define ASSAY_ASSIGN(decl, expr)                                                                         \
  auto ASSAY_CONCAT(assay_result_, __LINE__) = (expr);                                                   \
  if (!ASSAY_CONCAT(assay_result_, __LINE__).ok()) return ASSAY_CONCAT(assay_result_, __LINE__).error(); \
  decl = std::move(ASSAY_CONCAT(assay_result_, __LINE__)).value()
