// What changes over a run: learning rate, Muon's momentum, weight decay. Source: nanochat's base_train.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spec/run_config.h"

namespace assay {

// Multiplier of every learning rate, in (0, 1]: linear warm-up, flat, linear warm-down to final_lr_frac.
double lr_scale(const TrainConfig&, int64_t step);
// 0.85 -> 0.97 over the first 400 steps, 0.97 -> 0.90 over the warm-down.
double muon_momentum(const TrainConfig&, int64_t step);
// Cosine from weight_decay to zero over the run.
double muon_weight_decay(const TrainConfig&, int64_t step);

// What a warm-up and a warm-down that cannot both be do to the rates of this run, a sentence each with its numbers: the
// peak that is reached, and where the rates jump. Empty for a schedule that rises, stays and falls.
std::vector<std::string> schedule_warnings(const TrainConfig&);

}  // namespace assay
