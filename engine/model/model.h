// The model over an arena: forward and backward of one micro-batch, written once for every backend, precision and way
// of execution. docs/engine.md, "The model".
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/attention_block.h"
#include "engine/model/head.h"
#include "engine/model/moe_block.h"
#include "engine/model/step_results.h"

namespace assay {

class Model {
 public:
  // Views into `memory` (plan.arena_bytes), which outlives the model. Nothing is initialised but constant
  // tables and the verdict.
  Model(const RunConfig&, const RunPlan&, Ops&, void* memory);

  // First use: weights, zero moments, router bias 0, uncalibrated FP8 scales.
  void initialise(int64_t seed);
  // A run that has made `steps` steps goes on in this model: what depends on a step's number is as it was.
  void continue_at(int64_t steps) { steps_begun_ = steps; }
  // Start of a step: compute weights from the masters; loss, expert loads and the gradients that micro_step adds to
  // become zero.
  void begin_step();
  // One micro-batch: adds to the step's gradients (of the loss sum times grad_scale, the same in every call), the loss
  // sum and the expert loads.
  void micro_step(const int32_t* tokens, const int32_t* targets, double grad_scale);
  // End of a step: the gradients' sums of squares and the verdict; unless it stops them, the router's biases from the
  // loads and the FP8 scales from the step's amaxes.
  void end_step();
  // i32 [1] on the device; what step_state.h says. Cleared by forgive() alone.
  const int32_t* verdict() const { return verdict_.as<int32_t>(); }
  void forgive() { ops_.fill_zero({verdict_}); }
  // Starts to copy what is known after end_step(); valid once the ops have passed a later mark.
  void read_results(StepReadback&);
  std::unique_ptr<StepReadback> make_readback() const;
  // Copies the results of the step so far and waits for them.
  StepResults results();
  // Sum of the losses of one micro-batch; leaves training state as it is. If static capacity is exceeded the sum is
  // worth nothing.
  std::optional<CapacityExceeded> evaluate(const int32_t* tokens, const int32_t* targets, double* loss_sum);
  // Runs the micro-batch again, looking at every operation's result: the name of the first tensor that holds an
  // infinity or NaN, parameters first. Empty if there is none.
  std::string first_non_finite(const int32_t* tokens, const int32_t* targets);

  Weights& weights() { return weights_; }
  const ModelShape& shape() const { return shape_; }
  // Device state that is not a parameter, by name: "router_bias", and with FP8 "fp8.scale", "fp8.amax".
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  void load_batch(const int32_t* tokens, const int32_t* targets);
  void forward(double grad_scale);
  void backward();
  void load_tables();
  bool warming_up() const;
  double square_sum(const Tensor&);

  const RunConfig& config_;
  ModelShape shape_;
  Ops& ops_;
  Arena arena_;
  Weights weights_;
  Context context_;
  Tensor targets_, x_, x0_, dx_, dx0_, embed_rstd_;
  Tensor router_bias_, router_total_, router_peak_, counts_, loss_sum_, square_sums_, verdict_, fp8_format_max_;
  int64_t steps_begun_ = 0;  // of the run
  int64_t micro_steps_ = 0;  // of this model
  // Of a step's first micro-step and of the others, which add to the gradients; after the model's first ones.
  std::unique_ptr<Recording> first_recording_, recording_;
  std::unique_ptr<StepReadback> readback_;
  std::vector<std::unique_ptr<AttentionBlock>> attention_;
  std::vector<std::unique_ptr<MoeBlock>> moe_;
  std::unique_ptr<Head> head_;
};

}  // namespace assay
