// What a training step leaves for the host to see, and the memory in which it arrives there.
#pragma once

#include <optional>
#include <vector>

#include "engine/ops/backend.h"
#include "engine/plan/shape.h"

namespace assay {

// Static execution: a step sent an expert more rows than its capacity. Nothing was updated; the step must be made again
// with a plan of a larger capacity.
struct CapacityExceeded {
  int64_t layer = 0;
  int64_t expert = 0;
  int64_t rows = 0;
};

struct StepResults {
  int32_t verdict = 0;  // step_state.h
  double loss_sum = 0;
  std::vector<double> square_sums;   // of every gradient, in the order of Weights::all()
  std::vector<int32_t> expert_rows;  // routed to each expert in the step, [L * E]
  std::vector<int32_t> peak_rows;    // most in one micro-batch, [L * E]
};

// The expert with the most rows, if they are more than the shape's capacity.
std::optional<CapacityExceeded> over_capacity(const StepResults&, const ModelShape&);

// Memory of the host for one step's results. Belongs to the ops it was made with.
class StepReadback {
 public:
  StepReadback(Ops&, const ModelShape&, int64_t parameters);
  ~StepReadback();
  StepReadback(const StepReadback&) = delete;
  StepReadback& operator=(const StepReadback&) = delete;

  // Starts the copies of device tensors: loss_sum f64 [1], square_sums f64 [W], total and peak i32 [L, E], verdict i32
  // [1].
  void start(const Tensor& loss_sum, const Tensor& square_sums, const Tensor& total, const Tensor& peak,
             const Tensor& verdict);
  // Valid once the ops have passed a mark that is later than start().
  StepResults results() const;

 private:
  Ops& ops_;
  int64_t parameters_, experts_;
  char* memory_;
};

}  // namespace assay
