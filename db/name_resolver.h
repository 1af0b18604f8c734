// What the names that people give mean: the one resolver of tags and run names, for every reader and every change. What
// nothing has is not_found and says what may have been meant; what means several is invalid_argument and lists them. A
// part of RunStore.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "db/experiment_tables.h"
#include "db/run_reads.h"
#include "db/sqlite.h"

namespace assay {

class NameResolver {
 public:
  NameResolver(Database& db, const ExperimentTables& experiments) : db_(db), experiments_(experiments) {}

  Result<int64_t> experiment(const std::string& tag) const;  // of "tag" or "experiment/tag", not empty
  // Of a name as in RunFilter; of experiment `experiment_id` alone when that is not 0.
  Result<int64_t> run(const std::string& name, int64_t experiment_id = 0) const;
  // The same selection with its tag as experiment_id and its names as ids.
  Result<RunFilter> resolved(RunFilter filter) const;

 private:
  // Why nothing has the name. `parts` are those of `name`.
  Error no_experiment(const std::string& tag) const;
  Error no_run(const std::string& name, const std::vector<std::string>& parts, int64_t experiment_id) const;

  Database& db_;
  const ExperimentTables& experiments_;
};

}  // namespace assay
