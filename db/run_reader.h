// One run or attempt with all that belongs to it, and what the scheduler asks. Paths are absolute, as they are now. A
// part of RunStore.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "db/fleet_tables.h"
#include "db/name_resolver.h"
#include "db/run_reads.h"
#include "db/setting_table.h"
#include "db/sqlite.h"

namespace assay {

class RunReader {
 public:
  RunReader(Database& db, const std::string& home, const NameResolver& names, const FleetTables& fleet,
            const SettingTable& settings)
      : db_(db), home_(home), names_(names), fleet_(fleet), settings_(settings) {}

  // As RunStore's functions of these names.
  Result<ListedRun> get(const std::string& name) const;
  Result<ListedRun> get(int64_t run_id) const;
  Result<std::vector<AttemptRow>> attempts_of(int64_t run_id) const;
  Result<std::string> why_not_started(int64_t run_id) const;
  Result<AttemptContext> get_attempt(int64_t attempt_id) const;
  Result<std::vector<AttemptContext>> live_attempts() const;

  Result<std::vector<ClaimCandidate>> claim_candidates(int64_t now_ms, int64_t limit) const;
  Result<std::optional<int64_t>> next_retry_at() const;

 private:
  // `condition` speaks of attempts a and of ?1, the id.
  Result<std::vector<AttemptContext>> contexts(std::string_view condition, int64_t attempt_id) const;

  Database& db_;
  const std::string& home_;
  const NameResolver& names_;
  const FleetTables& fleet_;
  const SettingTable& settings_;
};

}  // namespace assay
