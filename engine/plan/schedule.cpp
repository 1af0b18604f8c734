#include "engine/plan/schedule.h"

#include <fmt/format.h>

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

std::vector<std::string> schedule_warnings(const TrainConfig& t) {
  const int64_t warmdown = warmdown_steps(t), plateau_end = t.steps - warmdown;  // the last step at the full rate
  const std::string cause = fmt::format("train.warmup_steps = {} with train.steps = {}", t.warmup_steps, t.steps);
  const auto lower = [&](int64_t at_most) {
    return at_most > 0 ? fmt::format("set train.warmup_steps = {} or less", at_most) : "set train.warmup_steps = 0";
  };
  if (t.warmup_steps > t.steps)
    return {fmt::format("{}: the learning rates reach only {:.3g} of their values and never fall; {}, or train longer",
                        cause, lr_scale(t, t.steps - 1), lower(plateau_end))};
  // The first step after the warm-up is to be at the full rate or one step of the warm-down below it.
  if (t.warmup_steps <= plateau_end + 1) return {};
  if (t.warmup_steps == t.steps)
    return {
        fmt::format("{}: the learning rates rise until the last step, so that the warm-down over {} steps "
                    "(train.warmdown_ratio = {}) never comes; {}",
                    cause, warmdown, t.warmdown_ratio, lower(plateau_end))};
  return {fmt::format(
      "{} and train.warmdown_ratio = {}: the warm-down begins after step {}, within the warm-up, so that the "
      "learning rates jump from {:.3g} at step {} to {:.3g} at step {}; {}, or a smaller "
      "train.warmdown_ratio",
      cause, t.warmdown_ratio, plateau_end, lr_scale(t, t.warmup_steps - 1), t.warmup_steps - 1,
      lr_scale(t, t.warmup_steps), t.warmup_steps, lower(plateau_end))};
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
