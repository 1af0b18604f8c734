// Table requests of queue.db: answers of mutations by the id of their call, so that a call that is sent twice does its
// work once. An answer is kept for limits::request_id_keep_ms. A part of RunStore.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "db/changes.h"
#include "db/sqlite.h"

namespace assay {

class RequestTable {
 public:
  RequestTable(Database& db, const Clock& clock) : db_(db), clock_(clock) {}

  Status apply(const RequestResult& result);
  // Nothing when the id is not remembered (any longer). invalid_argument when it was used for another method.
  Result<std::optional<std::string>> find(const std::string& request_id, const std::string& method) const;

 private:
  Database& db_;
  const Clock& clock_;
};

}  // namespace assay
