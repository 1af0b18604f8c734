// Bringing a database file to the schema of this program.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"
#include "db/sqlite.h"

namespace assay {

// One change of the schema. Versions are 1, 2, 3, ...; a released migration is never edited.
struct Migration {
  int version;
  std::string_view name;
  const char* sql;
};

struct Schema {
  std::string_view what;   // "queue" or "metrics", for messages
  int32_t application_id;  // PRAGMA application_id, so that a file of another program is never touched
  std::span<const Migration> migrations;
};

const Schema& queue_schema();
const Schema& metrics_schema();

// Runs what the file lacks, each migration in a transaction of its own with its row in table `migrations` and PRAGMA
// user_version. failed_precondition, file untouched: the file belongs to another program, or has a migration that this
// program does not know (named in the message). `now_ms` is stored as the time of the migration.
Status migrate(Database& database, const Schema& schema, int64_t now_ms);

}  // namespace assay
