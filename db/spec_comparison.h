// Enqueueing: what a spec would change under a tag, and what it has changed. `assay plan` shows it and `assay enqueue`
// does it, so both decide here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "spec/experiment_spec.h"

namespace assay {

class Database;

// A run of a spec beside what is queued under the tag.
struct RunComparison {
  enum class Is { new_run, already_there, another };
  Is is = Is::new_run;
  std::string difference;  // another: which values of the run that has its place or its name differ
};
// What enqueueing a spec under a tag would do.
struct SpecComparison {
  int64_t experiment_id = 0;         // 0 = nothing is queued under this experiment and tag
  std::vector<RunComparison> runs;   // in the spec's order; with `another` among them the spec is refused
  std::vector<std::string> updated;  // policies that change, "priority 0 -> 5 (3 waiting runs)"
};
// Why the spec is refused and what can be done: of one run, and of all of them, a line each; empty if it is not.
std::string conflict_text(const ExperimentSpec&, const std::string& tag, const RunComparison&);
std::string conflict_text(const ExperimentSpec&, const std::string& tag, const SpecComparison&);

struct EnqueueResult {
  int64_t experiment_id = 0;
  std::string experiment;
  std::string tag;
  std::vector<std::string> added;  // run names, in the order of the spec
  int64_t already_there = 0;
  std::vector<std::string> updated;  // SpecComparison::updated
};

// What enqueueing would do now; nothing is written. For the parts of RunStore: the caller holds its lock, and its
// transaction if it is about to enqueue.
Result<SpecComparison> compare_spec(Database& db, const ExperimentSpec& spec, const std::string& tag);

}  // namespace assay
