#include "profile/profile.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

namespace assay::bench {
namespace {

struct Rate {
  double value = 0;  // FLOP/s or bytes/s
  std::string text;
};

Rate rate_of(const OpCost& cost, int64_t calls, double ms) {
  const double seconds = ms * 1e-3, count = static_cast<double>(calls);
  if (cost.flops > 0) {
    const double rate = cost.flops * count / seconds;
    return {rate, fmt::format("{:.0f} TFLOP/s", rate * 1e-12)};
  }
  const double rate = cost.bytes * count / seconds;
  return {rate, fmt::format("{:.0f} GB/s", rate * 1e-9)};
}

}  // namespace

Profile::Row& Profile::row(const OpCost& cost) {
  Row& row = rows_[{cost.op, cost.shape}];
  if (row.calls == 0) row.cost = cost;
  return row;
}

double Profile::total_ms() const {
  double ms = 0;
  for (const auto& [key, row] : rows_) ms += row.ms;
  return ms;
}

void Profile::print(std::FILE* to, int steps, double step_ms) const {
  std::vector<const Row*> rows;
  std::map<Family, double> families;
  for (const auto& [key, row] : rows_) {
    rows.push_back(&row);
    families[row.cost.family] += row.ms;
  }
  std::sort(rows.begin(), rows.end(), [](const Row* a, const Row* b) { return a->ms > b->ms; });
  const double total = total_ms();
  fmt::print(to, "{:<19} {:<46} {:>6} {:>9} {:>6} {:>13}  {}\n", "op", "shape", "calls", "ms/step", "share", "rate",
             "% of ceiling");
  for (const Row* r : rows) {
    const Rate rate = rate_of(r->cost, r->calls, r->ms);
    fmt::print(to, "{:<19} {:<46} {:>6.1f} {:>9.3f} {:>5.1f}% {:>13}  {:.0f} ({})\n", r->cost.op, r->cost.shape,
               static_cast<double>(r->calls) / steps, r->ms / steps, 100 * r->ms / total, rate.text,
               100 * rate.value / r->cost.ceiling, r->cost.ceiling_name);
  }
  fmt::print(to,
             "\nceilings of an H100: BF16 GEMM 710 and FP8 GEMM 1350 TFLOP/s, attention 556 forward and 490 backward, "
             "copy 3.0 TB/s\n");
  for (const auto& [family, ms] : families)
    fmt::print(to, "{:<19} {:>9.3f} ms/step {:>5.1f}%\n", to_string(family), ms / steps, 100 * ms / total);
  fmt::print(to, "{:<19} {:>9.3f} ms/step\n{:<19} {:>9.3f} ms/step ({:+.1f} %)\n", "sum of the ops", total / steps,
             "measured step", step_ms, 100 * (step_ms * steps / total - 1));
}

}  // namespace assay::bench
