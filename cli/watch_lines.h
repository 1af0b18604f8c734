// `assay watch` without a screen: one line per event, and one for every tenth of a run's steps, in the order in which
// they happened: the steps of an attempt after its start and before its end.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/context.h"
#include "cli/run_rows.h"

namespace assay {

class WatchLines {
 public:
  // Of the experiment `tag` ("tag" or "experiment/tag"), or of all for "".
  WatchLines(Context& context, std::string tag);
  // How every live run stands now; what happened before is not told.
  Status begin(Client& client);
  // What happened since the last call, kept for tell().
  Status read_events(Client& client);
  // Says it, with how far the runs have come by a list made after that.
  Status tell(Client& client, const v1::ListRunsResponse& list);

 private:
  // What has been told of a run. Runs are named in full.
  struct Told {
    int64_t attempt = 0;  // the newest whose start has been told
    int64_t mark = -1;    // see mark_of
  };
  using RunsByName = std::map<std::string, v1::Run>;

  Result<RunsByName> runs_of(Client& client, const v1::ListRunsResponse& list) const;
  void print_event(const v1::Event& event);
  void tell_progress(const v1::Run& run, int64_t at);
  void print_progress(const v1::Run& run, int64_t at);
  // Tenths of the run that are done, told apart by attempt.
  static int64_t mark_of(const v1::Run& run);

  Context& context_;
  std::string tag_;
  int64_t last_event_id_ = 0;
  int64_t read_at_ = 0;  // unix ms: what the events tell of happened by then
  std::vector<v1::Event> events_;
  std::map<std::string, Told> told_;
  ExperimentLabels experiments_;
};

}  // namespace assay
