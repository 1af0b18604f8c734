// What reads of runs and attempts take and return.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "db/types.h"

namespace assay {

struct ListedRun {
  RunRow run;              // config_toml is empty except from get_run
  std::string experiment;  // experiment name
  std::string tag;
  std::optional<AttemptRow> latest;  // newest attempt, nothing before the first; log_tail empty except from get_run
};

// Which runs. Empty fields select everything; the fields are combined with "and". What is named must be there: a tag, a
// name or an id that nothing has is not_found and says what may have been meant; a tag or name that means several is
// invalid_argument and lists them. db/name_resolver.h decides for every reader and every change.
struct RunFilter {
  // "name" (newest experiment that has it), "tag/name" or "experiment/tag/name".
  std::vector<std::string> names;
  std::vector<int64_t> ids;
  std::string tag;  // "tag" or "experiment/tag"
  int64_t experiment_id = 0;
  std::string cell_key;
  std::vector<RunState> states;
  int64_t limit = 0;  // 0 = all
};

struct RunCounts {
  std::array<int64_t, std::size(words_of(RunState{}))> by_state{};  // index = static_cast<size_t>(RunState)
  int64_t total() const;
  int64_t operator[](RunState state) const { return by_state[static_cast<size_t>(state)]; }
};

struct ClaimCandidate {
  int64_t run_id = 0;
  int64_t experiment_id = 0;
  RunState state = RunState::queued;  // queued or retry_wait: the `from` of the change that claims it
  int priority = 0;
  int devices = 1;
  Backend backend = Backend::automatic;  // RunRow::backend, set by insert_experiment from the run's config
};

struct AttemptContext {
  AttemptRow attempt;
  RunRow run;  // with config_toml
  std::string experiment;
  std::string tag;
  std::vector<std::string> device_ids;  // held now, sorted
};

}  // namespace assay
