// Tables experiments and run_configs of queue.db, and the birth of runs: a spec becomes an experiment and its runs. An
// experiment is a name and a tag, a run of it a cell with a repeat, and once queued its config never changes. A part of
// RunStore.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "db/event_table.h"
#include "db/request_table.h"
#include "db/spec_comparison.h"
#include "db/sqlite.h"
#include "db/types.h"

namespace assay {

class ExperimentTables {
 public:
  ExperimentTables(Database& db, const Clock& clock, EventTable& events, RequestTable& requests)
      : db_(db), clock_(clock), events_(events), requests_(requests) {}

  // Carries out compare_spec(). already_exists (conflict_text) when it refuses the spec. An event for each run and each
  // policy that changes.
  Result<EnqueueResult> insert(const ExperimentSpec& spec, const std::string& tag, const std::string& cause);
  // What an enqueue with this request id has answered.
  Status remember(const std::string& request_id, const EnqueueResult& result);
  Result<std::optional<EnqueueResult>> remembered(const std::string& request_id) const;

  Result<ExperimentRow> get(int64_t id) const;
  Result<ExperimentRow> newest() const;
  Result<std::vector<ExperimentRow>> list(int64_t limit) const;  // newest first, without spec_text; limit 0 = all

 private:
  Result<int64_t> upsert(const ExperimentSpec& spec, const std::string& tag);
  Status update_policies(const ExperimentSpec& spec, const EnqueueResult& result, const std::string& cause);
  Status insert_runs(const ExperimentSpec& spec, const SpecComparison& comparison, const std::string& cause,
                     EnqueueResult& result);

  Database& db_;
  const Clock& clock_;
  EventTable& events_;
  RequestTable& requests_;
};

}  // namespace assay
