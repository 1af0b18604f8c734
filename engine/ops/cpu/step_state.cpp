#include "engine/ops/step_state.h"

#include <algorithm>
#include <cmath>

#include "engine/ops/cpu/element.h"

namespace assay::cpu {

void expert_load(const ExpertLoadArgs& a) {
  const char* op = "expert_load";
  const int64_t n = a.counts.numel();
  check_tensor(op, "counts", a.counts, DType::i32, {n});
  check_tensor(op, "total", a.total, DType::i32, {n});
  check_tensor(op, "peak", a.peak, DType::i32, {n});
  const int32_t* counts = a.counts.as<int32_t>();
  int32_t *total = a.total.as<int32_t>(), *peak = a.peak.as<int32_t>();
  for (int64_t i = 0; i < n; ++i) {
    total[i] += counts[i];
    peak[i] = std::max(peak[i], counts[i]);
  }
}

void step_verdict(const StepVerdictArgs& a) {
  const char* op = "step_verdict";
  check_tensor(op, "loss_sum", a.loss_sum, DType::f64, {1});
  check_tensor(op, "square_sums", a.square_sums, DType::f64, {a.square_sums.numel()});
  check_tensor(op, "peak", a.peak, DType::i32, {a.peak.numel()});
  check_tensor(op, "verdict", a.verdict, DType::i32, {1});
  int32_t found = 0;
  const double* squares = a.square_sums.as<double>();
  const auto finite = [](double x) { return std::isfinite(x); };
  if (!finite(*a.loss_sum.as<double>()) || !std::all_of(squares, squares + a.square_sums.numel(), finite))
    found |= step_not_finite;
  const int32_t* peak = a.peak.as<int32_t>();
  if (a.capacity > 0 && *std::max_element(peak, peak + a.peak.numel()) > a.capacity) found |= step_over_capacity;
  *a.verdict.as<int32_t>() |= found;
}

}  // namespace assay::cpu
