// One optimizer step over all parameters: Muon for the blocks' matrices, AdamW for embeddings, head and scalars.
#pragma once

#include "engine/model/weights.h"
#include "engine/plan/schedule.h"

namespace assay {

// AdamW's constants for one kind of parameter, before the schedule. Source: nanochat's setup_optimizer.
struct AdamWRule {
  double lr = 0;
  double beta1 = 0;
  double beta2 = 0;
  double weight_decay = 0;
};
inline constexpr double adamw_eps = 1e-10;
AdamWRule adamw_rule(ParameterKind, const TrainConfig&, int64_t d_model);

// Overwrites the gradients. `step` is 0-based. full_precision: Muon's products in FP32 (FP32 runs). skip: the step's
// verdict on the device (step_state.h); nothing is updated where it stops the step.
void optimizer_step(Weights&, const RunConfig&, int64_t step, bool full_precision, const int32_t* skip, Ops&);

}  // namespace assay
