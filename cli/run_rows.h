// How a run looks in a row: shared by ls and watch.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "base/status.h"
#include "cli/table.h"
#include "proto/queue.pb.h"
#include "spec/words.h"

namespace assay {

// "experiment/tag/name": what names this run and no other.
std::string full_name(const v1::Run& run);
// Says of which experiment a run is where several are in sight: "" for one, else its tag, or "experiment/tag" where two
// share a tag.
class ExperimentLabels {
 public:
  void see(const std::string& experiment, const std::string& tag) { seen_[tag].insert(experiment); }
  bool several() const { return seen_.size() > 1 || (seen_.size() == 1 && seen_.begin()->second.size() > 1); }
  std::string label(const std::string& experiment, const std::string& tag) const;
  // "name" or "label/name": what the run can be called where these experiments are in sight.
  std::string run_name(const std::string& experiment, const std::string& tag, const std::string& name) const;

 private:
  std::map<std::string, std::set<std::string>> seen_;  // tag -> experiments
};

// Steps done, 0..1. A run that resumed counts from its last step, not from how many this attempt made.
double progress(const v1::Run& run);
// Expected time to the end from tail50 dt; -1 = not running or nothing to tell from.
int64_t time_left_ms(const v1::Run& run);
// Wall time of the newest attempt up to its end or `now`; -1 = not started.
int64_t elapsed_ms(const v1::Run& run, int64_t now);
// One short remark: "plan_error: ...", "attempt 2, load", "starts again in 12 s", "cancelling", "stopped with its
// worker"; of a run from GetRun also "not started: ...".
std::string remark(const v1::Run& run, int64_t now);
// Of a run state's word. Both are false for one that this program does not know.
bool is_live(const std::string& state);
bool has_ended(const std::string& state);

// "<run>.fail<N>" for a failed attempt that another one followed, or will follow because the run waits for it; else the
// run's name. The same as in the report. `run` has its attempts.
std::string attempt_name(const v1::Run& run, const v1::Attempt& attempt);

// "3 running, 12 queued, 4 completed", in the order of the states' life: of all runs selected, whether listed or not.
std::string counts_line(const std::map<std::string, int64_t>& by_state, bool colour);
std::string counts_line(const v1::ListRunsResponse&, bool colour);
// failed_precondition: there are runs of whose state only a newer daemon knows.
Result<bool> any_live(const v1::ListRunsResponse&);

// Cells that are "-" before the first step.
std::string loss_cell(const v1::Run& run);
std::string rate_cell(const v1::Run& run);

}  // namespace assay
