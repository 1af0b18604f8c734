#include "engine/model/step_results.h"

#include <algorithm>
#include <cstring>

namespace assay {
namespace {

// The results one after the other: doubles first, so that all are aligned.
size_t doubles(int64_t n) {
  return static_cast<size_t>(n) * sizeof(double);
}
size_t ints(int64_t n) {
  return static_cast<size_t>(n) * sizeof(int32_t);
}

template <class T>
std::vector<T> read(const char* from, int64_t n) {
  std::vector<T> values(static_cast<size_t>(n));
  std::memcpy(values.data(), from, values.size() * sizeof(T));
  return values;
}

}  // namespace

std::optional<CapacityExceeded> over_capacity(const StepResults& r, const ModelShape& s) {
  const auto most = std::max_element(r.peak_rows.begin(), r.peak_rows.end());
  if (s.capacity <= 0 || most == r.peak_rows.end() || *most <= s.capacity) return std::nullopt;
  const int64_t at = most - r.peak_rows.begin();
  return CapacityExceeded{at / s.experts, at % s.experts, *most};
}

StepReadback::StepReadback(Ops& ops, const ModelShape& shape, int64_t parameters)
    : ops_(ops),
      parameters_(parameters),
      experts_(shape.layers * shape.experts),
      memory_(static_cast<char*>(
          ops.allocate_host(doubles(1 + parameters_) + ints(2 * experts_ + 1), "the results of a step"))) {}

StepReadback::~StepReadback() {
  ops_.release_host(memory_);
}

void StepReadback::start(const Tensor& loss_sum, const Tensor& square_sums, const Tensor& total, const Tensor& peak,
                         const Tensor& verdict) {
  char* to = memory_;
  for (const Tensor* t : {&loss_sum, &square_sums, &total, &peak, &verdict}) {
    ops_.copy_to_host_later(to, t->data, t->bytes());
    to += t->bytes();
  }
}

StepResults StepReadback::results() const {
  StepResults r;
  std::memcpy(&r.loss_sum, memory_, sizeof(double));
  r.square_sums = read<double>(memory_ + doubles(1), parameters_);
  const char* rows = memory_ + doubles(1 + parameters_);
  r.expert_rows = read<int32_t>(rows, experts_);
  r.peak_rows = read<int32_t>(rows + ints(experts_), experts_);
  std::memcpy(&r.verdict, rows + ints(2 * experts_), sizeof(int32_t));
  return r;
}

}  // namespace assay
