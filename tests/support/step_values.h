// Steps whose every field has a value of its own, and a comparison of all fields, for tests of what carries steps.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "spec/step_metrics.h"

namespace assay {

inline StepMetrics some_step(int64_t step) {
  StepMetrics metrics;
  int64_t n = 0;
  for (const StepField& field : step_fields)
    field.visit(metrics, [&](auto& value) {
      ++n;
      if constexpr (std::is_integral_v<std::remove_reference_t<decltype(value)>>)
        value = (int64_t{1} << 53) + 1 + 1000 * step + n;  // more than a double holds
      else
        value = 1.0 / static_cast<double>(3 + 100 * step + n);
    });
  metrics.step = step;
  return metrics;
}

inline std::vector<StepMetrics> some_steps(int64_t from, int64_t count) {
  std::vector<StepMetrics> steps;
  for (int64_t i = 0; i < count; ++i) steps.push_back(some_step(from + i));
  return steps;
}

// Doubles by their bits, so that -0 does not equal 0. Any NaN is the same as any other: some ways normalise it.
inline std::vector<uint64_t> bits(const StepMetrics& metrics) {
  std::vector<uint64_t> all;
  for (const StepField& field : step_fields)
    field.visit(metrics,
                [&](auto value) { all.push_back(value != value ? ~uint64_t{0} : std::bit_cast<uint64_t>(value)); });
  return all;
}

}  // namespace assay
