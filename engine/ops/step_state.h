// Bookkeeping of a training step on the device: what went wrong in it is found there, and stops its update there, so
// that the host can look at it a step later.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// Bits of a step's verdict, i32 [1] on the device. While any is set, ops that are given it as `skip` write nothing: the
// run's state stays what it was before the step.
inline constexpr int32_t step_not_finite = 1;
inline constexpr int32_t step_over_capacity = 2;

// After every micro-batch: total += counts, peak = max(peak, counts). i32, all of one shape.
struct ExpertLoadArgs {
  Tensor counts, total, peak;
};
// verdict |= step_not_finite if a value is infinite or NaN; |= step_over_capacity if capacity > 0 and a peak is above
// it. Bits are never cleared.
struct StepVerdictArgs {
  Tensor loss_sum;     // f64 [1]
  Tensor square_sums;  // f64 [n]
  Tensor peak;         // i32
  int64_t capacity = 0;
  Tensor verdict;  // i32 [1]
};

namespace cpu {
void expert_load(const ExpertLoadArgs&);
void step_verdict(const StepVerdictArgs&);
}  // namespace cpu
}  // namespace assay
