// What `assay watch` shows, as lines: pure, so that tests see whole screens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/queue.pb.h"

namespace assay {

struct WatchView {
  int width = 80;
  int height = 24;
  bool colour = false;
  int64_t now = 0;    // unix ms
  int first_row = 0;  // scrolled down by this many runs
  std::string home;
  std::string problem;  // one line about the daemon not answering; empty = all is well
};

// At most `height` lines, none wider than `width`.
std::vector<std::string> watch_lines(const v1::ListRunsResponse& list, const WatchView& view);
// How far first_row may go.
int last_first_row(int runs, int height);

}  // namespace assay
