// Runs in queue order, and how many there are. The order is that of three partial indexes, one after the other, and
// counts are kept by triggers (db/schema.sql): what either costs is said in db/run_store.h. A part of RunStore.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "db/name_resolver.h"
#include "db/run_reads.h"
#include "db/sqlite.h"

namespace assay {

class RunLists {
 public:
  RunLists(Database& db, const std::string& home, const NameResolver& names) : db_(db), home_(home), names_(names) {}

  // As RunStore::list_runs and RunStore::count_runs.
  Result<std::vector<ListedRun>> list(const RunFilter& filter) const;
  Result<RunCounts> count(const RunFilter& filter) const;

 private:
  // Of a filter that has ids or tags and names no longer (NameResolver::resolved).
  Result<std::vector<ListedRun>> list_resolved(const RunFilter& filter) const;
  Result<std::vector<ListedRun>> list_ids(const RunFilter& filter) const;
  Result<std::vector<ListedRun>> list_all(const RunFilter& filter) const;
  // Appends the rows of a query of listed_run columns.
  Status read_rows(Statement& rows, std::vector<ListedRun>& listed) const;

  Database& db_;
  const std::string& home_;
  const NameResolver& names_;
};

}  // namespace assay
