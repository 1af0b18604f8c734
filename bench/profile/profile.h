// Time of every op of some training steps, by op and shape, and the table of it.
#pragma once

#include <cstdio>
#include <map>
#include <string>
#include <utility>

#include "profile/op_cost.h"

namespace assay::bench {

class Profile {
 public:
  struct Row {
    OpCost cost;  // of one call
    int64_t calls = 0;
    double ms = 0;
  };

  // The row of an op, made by its first call; valid until clear().
  Row& row(const OpCost&);
  void clear() { rows_.clear(); }
  double total_ms() const;
  // Per step, the most expensive row first, then by family. step_ms: the same step unprofiled.
  void print(std::FILE*, int steps, double step_ms) const;

 private:
  std::map<std::pair<std::string, std::string>, Row> rows_;
};

}  // namespace assay::bench
