// Records which buffers a program needs and when, in the order in which the program runs its operations.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/plan/plan.h"

namespace assay {

class Timeline {
 public:
  // Lives through the whole run: weights, optimizer state, sums over micro-batches.
  void keep(const std::string& name, size_t bytes);
  // First used by the current operation.
  void begin(const std::string& name, size_t bytes);
  // Last used by the current operation. The buffer must have begun.
  void end(const std::string& name);
  // On to the next operation.
  void tick() { ++now_; }
  // Buffers still open end now; kept ones span everything.
  std::vector<PlannedBuffer> finish();

 private:
  int now_ = 0;
  std::vector<PlannedBuffer> buffers_;
  std::map<std::string, size_t> open_;  // name -> index in buffers_
  std::vector<size_t> kept_;
};

}  // namespace assay
