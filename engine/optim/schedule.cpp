#include "engine/optim/schedule.h"

#include <cmath>
#include <numbers>

namespace assay {
namespace {

constexpr int64_t momentum_warmup_steps = 400;

double lerp(double from, double to, double fraction) {
  return from + (to - from) * fraction;
}

int64_t warmdown_steps(const TrainConfig& t) {
  return static_cast<int64_t>(std::nearbyint(t.warmdown_ratio * static_cast<double>(t.steps)));
}

}  // namespace

double lr_scale(const TrainConfig& t, int64_t step) {
  const int64_t warmdown = warmdown_steps(t);
  if (step < t.warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(t.warmup_steps);
  if (step <= t.steps - warmdown) return 1.0;
  const double left = static_cast<double>(t.steps - step) / static_cast<double>(warmdown);
  return left + (1.0 - left) * t.final_lr_frac;
}

double muon_momentum(const TrainConfig& t, int64_t step) {
  const int64_t warmdown = warmdown_steps(t), start = t.steps - warmdown;
  if (step < momentum_warmup_steps)
    return lerp(0.85, 0.97, static_cast<double>(step) / static_cast<double>(momentum_warmup_steps));
  if (step < start || warmdown == 0) return 0.97;
  return lerp(0.97, 0.90, static_cast<double>(step - start) / static_cast<double>(warmdown));
}

double muon_weight_decay(const TrainConfig& t, int64_t step) {
  const double done = static_cast<double>(step) / static_cast<double>(t.steps);
  return t.weight_decay * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

}  // namespace assay
