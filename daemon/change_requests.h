// What people ask for: runs to be queued, and changes of runs or of the whole queue.
//
// Invariant: a request id seen before gives its first answer, also within a commit; an answer is remembered in the
// group that it tells of. Answers are valid once the commit has succeeded.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "base/words.h"
#include "daemon/assigner.h"
#include "daemon/group_commit.h"
#include "daemon/run_transitions.h"
#include "db/run_store.h"

namespace assay {

// Changes of runs; the word also names the answers that are remembered. change_requests.cpp has what each means.
#define ASSAY_RUN_VERBS(X)                                        \
  X(cancel, "cancel", "end runs, also live ones")                 \
  X(retry, "retry", "queue ended runs again")                     \
  X(hold, "hold", "keep runs, or the whole queue, from starting") \
  X(release, "release", "let what is held start")
ASSAY_WORDS(RunVerb, "change", ASSAY_RUN_VERBS);

struct Selection {
  std::vector<std::string> names;  // as in RunFilter
  std::vector<int64_t> ids;
  std::string tag;
  std::vector<RunState> states;
  bool everything() const { return names.empty() && ids.empty() && tag.empty() && states.empty(); }
};
RunFilter filter_of(const Selection&);

struct ChangeRequest {
  RunVerb verb = RunVerb::cancel;
  Selection selection;
  bool all = false;  // cancel: everything is meant; retry: all failed runs of the selection, and only those
  std::string request_id;
};
struct ChangeAnswer {
  std::vector<std::string> changed;    // run names, full ones where runs of several experiments were meant
  std::vector<std::string> unchanged;  // "name: why"
};

class ChangeRequests {
 public:
  // All references must outlive it.
  ChangeRequests(RunStore& runs, const Clock& clock, RunTransitions& transitions, Assigner& assigner,
                 GroupCommit& commit)
      : runs_(runs), clock_(clock), transitions_(transitions), assigner_(assigner), commit_(commit) {}

  // An empty tag is the time now, as one that this experiment has not had.
  Result<EnqueueResult> enqueue(const ExperimentSpec& spec, std::string tag, const std::string& request_id);
  Result<ChangeAnswer> change(const ChangeRequest& request);
  void committed() { staged_answers_.clear(); }

 private:
  Result<std::string> unused_tag(const ExperimentSpec& spec);
  Result<std::optional<ChangeAnswer>> answered(const std::string& request_id, RunVerb verb);
  Result<ChangeAnswer> change_runs(const ChangeRequest& request, ChangeList& group);
  ChangeAnswer hold_queue(bool held, RunVerb verb, ChangeList& group);
  void remember(const ChangeRequest& request, const ChangeAnswer& answer, ChangeList& group);

  RunStore& runs_;
  const Clock& clock_;
  RunTransitions& transitions_;
  Assigner& assigner_;
  GroupCommit& commit_;
  std::map<std::string, std::pair<RunVerb, ChangeAnswer>> staged_answers_;  // by request id
};

}  // namespace assay
