// The model over an arena: forward and backward of one micro-batch, written once for every backend, precision and way
// of execution. Source: ENGINE design, "Model".
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/attention_block.h"
#include "engine/model/head.h"
#include "engine/model/moe_block.h"

namespace assay {

class Model {
 public:
  // Views into `memory` (plan.arena_bytes), which outlives the model. Nothing is initialised but constant tables.
  Model(const RunConfig&, const RunPlan&, Ops&, void* memory);

  // First use: weights, zero moments and gradients, router bias 0, uncalibrated FP8 scales.
  void initialise(int64_t seed);
  // Start of a step: compute weights from the masters; gradients, loss and expert loads to zero.
  void begin_step();
  // The same for a model that takes over in the middle of a step, in an arena that already holds the step's sums.
  void resume_step(const std::vector<int64_t>& expert_rows);
  // One micro-batch: adds to the gradients (of the loss sum times grad_scale), the loss sum and the expert loads.
  // If static capacity is exceeded nothing has been added.
  std::optional<CapacityExceeded> micro_step(const int32_t* tokens, const int32_t* targets, double grad_scale);
  // Sum of the losses of one micro-batch; leaves training state as it is.
  std::optional<CapacityExceeded> evaluate(const int32_t* tokens, const int32_t* targets, double* loss_sum);
  // Copies the loss sum of the step so far to the host.
  double loss_sum();
  // Rows routed to each expert in this step, [L * E].
  const std::vector<int64_t>& expert_rows() const { return expert_rows_; }
  // End of a step: the router's biases from the loads, the FP8 scales from the step's amaxes.
  void update_state();
  // Sums of squares of every gradient, in the order of weights().all().
  std::vector<double> gradient_square_sums();
  // Runs the micro-batch again, looking at every operation's result: the name of the first tensor that holds an
  // infinity or NaN, parameters first. Empty if there is none.
  std::string first_non_finite(const int32_t* tokens, const int32_t* targets);

  Weights& weights() { return weights_; }
  const ModelShape& shape() const { return shape_; }
  // Device state that is not a parameter, by name: "router_bias", and with FP8 "fp8.scale", "fp8.amax".
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  std::optional<CapacityExceeded> forward(const int32_t* tokens, const int32_t* targets, double grad_scale);
  void backward();
  void load_tables();
  double square_sum(const Tensor&);

  const RunConfig& config_;
  ModelShape shape_;
  Ops& ops_;
  Arena arena_;
  Weights weights_;
  Context context_;
  Tensor targets_, x_, x0_, dx_, dx0_, embed_rstd_;
  Tensor router_bias_, router_total_, counts_, loss_sum_, square_sums_, fp8_format_max_;
  std::vector<int64_t> expert_rows_;
  std::vector<std::unique_ptr<AttentionBlock>> attention_;
  std::vector<std::unique_ptr<MoeBlock>> moe_;
  std::unique_ptr<Head> head_;
};

}  // namespace assay
