// `assay watch` without a screen: one line per event, and one for every tenth of a run's steps.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cli/client.h"
#include "cli/context.h"

namespace assay {

class WatchLines {
 public:
  WatchLines(Context& context, std::string tag);
  // How things stand now; what happened before is not told.
  Status begin(Client& client, const v1::ListRunsResponse& list);
  // What happened since the last call.
  Status more(Client& client, const v1::ListRunsResponse& list);

 private:
  void print_event(const v1::Event& event);
  void print_progress(const v1::Run& run);
  // Tenths of the run that are done, told apart by attempt.
  static int64_t mark_of(const v1::Run& run);

  Context& context_;
  std::string tag_;
  int64_t last_event_id_ = 0;
  std::map<int64_t, int64_t> told_;  // run id -> the mark last told
};

}  // namespace assay
