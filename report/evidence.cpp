#include "report/evidence.h"

namespace assay {

Evidence::Evidence(const std::vector<ReportCell>& cells, const ReportCell& base) : baseline(base) {
  for (const ReportCell& cell : cells) {
    if (cell.completed()) done.push_back(&cell);
    repeats = repeats || cell.done.size() > 1;
  }
}

std::string Evidence::certainty(const Estimate& a, const Estimate& b) const {
  switch (compare(a, b)) {
    case Order::not_distinguishable:
      return " (not distinguishable)";
    case Order::no_repeats:
      return repeats ? " (without repeats of both, so no interval)" : "";
    case Order::not_finite:
      return " (not finite in every repeat, so no verdict)";
    case Order::unknown:
    case Order::less:
    case Order::greater:
      return "";
  }
  return "";
}

}  // namespace assay
