// The spec file of an experiment: TOML text -> a validated list of runs. Format: docs/spec.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spec/run_config.h"
#include "spec/run_outcome.h"

namespace assay {

#define ASSAY_ON_FAILURES(X)                                              \
  X(continue_, "continue", "goes on with everything else")                \
  X(stop_cell, "stop_cell", "cancels the unfinished repeats of its cell") \
  X(stop_all, "stop_all", "cancels every unfinished run of the experiment")
ASSAY_WORDS(OnFailure, "on_failure", ASSAY_ON_FAILURES);

struct RetryPolicy {
  int max_attempts = 1;           // automatic attempts, the first included
  std::vector<FailureReason> on;  // reasons that are retried
  int64_t backoff_s = 0;          // wait before attempt n+1
};

// One run to queue: a cell of the matrix or an explicit [[runs]] entry, times one repeat.
struct PlannedRun {
  std::string name;      // unique in the experiment, deterministic: "moe_fp8_experts_static_repeat2"
  std::string cell_key;  // canonical hash of the cell's config without the seed: same cell = same key
  int repeat = 1;        // 1-based
  RunConfig config;      // complete; config.train.seed already includes the repeat
};

struct ExperimentSpec {
  std::string experiment;  // name
  std::string tag;         // empty = the enqueue time
  int priority = 0;
  OnFailure on_failure = OnFailure::continue_;
  RetryPolicy retry;
  std::string baseline;  // run name the report compares against; empty = the first run
  std::vector<PlannedRun> runs;
  std::string text;  // the source, kept with the experiment
  std::string hash;  // canonical: equal for specs that expand to the same runs and policies, whatever the layout
};

// `file:line:col: what, what was expected, did you mean`.
struct SpecError {
  std::string file;
  int line = 0;  // 1-based, 0 = the whole file
  int column = 0;
  std::string message;
  std::string to_string() const;
};

struct SpecResult {
  ExperimentSpec spec;
  std::vector<SpecError> errors;  // empty = spec is valid
  bool ok() const { return errors.empty(); }
};

// `file` is used in messages only. `base_folder`: relative data paths in the spec are made absolute against it.
SpecResult parse_experiment(std::string_view text, std::string_view file, std::string_view base_folder);

}  // namespace assay
