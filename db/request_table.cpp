#include "db/request_table.h"

#include <fmt/core.h>

#include "base/limits.h"

namespace assay {

Status RequestTable::apply(const RequestResult& result) {
  if (result.request_id.empty()) return Error{ErrorCode::invalid_argument, "a remembered request needs an id"};
  const int64_t now = clock_.unix_ms();
  ASSAY_TRY(db_.run("DELETE FROM requests WHERE expires_at <= ?", now));
  ASSAY_TRY(
      db_.run("INSERT INTO requests (id, method, expires_at, result) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
              result.request_id, result.method, now + limits::request_id_keep_ms, result.result));
  if (db_.rows_changed() == 1) return {};
  return Error{ErrorCode::aborted, fmt::format("request {} was done meanwhile", result.request_id)};
}

Result<std::optional<std::string>> RequestTable::find(const std::string& request_id, const std::string& method) const {
  ASSAY_ASSIGN(auto found, db_.prepare("SELECT method, result FROM requests WHERE id = ? AND expires_at > ?"));
  ASSAY_ASSIGN(bool row, found.bind(request_id, clock_.unix_ms()).step());
  if (!row) return std::optional<std::string>();
  if (found.text(0) != method) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("request id {} was used for {} before: every call needs an id of its own", request_id,
                             found.text(0))};
  }
  return std::optional<std::string>(found.text(1));
}

}  // namespace assay
