#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/optim/optimizer.h"

namespace assay {
namespace {

using ::testing::ElementsAre;

TrainConfig run_of(int64_t steps, int64_t warmup, double warmdown_ratio) {
  TrainConfig t;
  t.steps = steps;
  t.warmup_steps = warmup;
  t.warmdown_ratio = warmdown_ratio;
  return t;
}

TEST(Schedule, LearningRateWarmsUpStaysAndWarmsDown) {
  const TrainConfig t = run_of(140, 40, 0.65);  // warm-down: the last 91 steps
  EXPECT_DOUBLE_EQ(lr_scale(t, 0), 1.0 / 40);
  EXPECT_DOUBLE_EQ(lr_scale(t, 39), 1.0);
  EXPECT_DOUBLE_EQ(lr_scale(t, 49), 1.0);
  EXPECT_DOUBLE_EQ(lr_scale(t, 50), 90.0 / 91 + 1.0 / 91 * 0.05);
  EXPECT_DOUBLE_EQ(lr_scale(t, 139), 1.0 / 91 + 90.0 / 91 * 0.05);
}

TEST(Schedule, NoWarmUpAndNoWarmDown) {
  const TrainConfig t = run_of(10, 0, 0.0);
  for (int64_t step = 0; step < 10; ++step) EXPECT_DOUBLE_EQ(lr_scale(t, step), 1.0);
  EXPECT_DOUBLE_EQ(muon_momentum(run_of(1000, 0, 0.0), 999), 0.97);
}

TEST(Schedule, MomentumRisesThenFallsWithTheWarmDown) {
  const TrainConfig t = run_of(2000, 40, 0.65);  // warm-down from step 700
  EXPECT_DOUBLE_EQ(muon_momentum(t, 0), 0.85);
  EXPECT_DOUBLE_EQ(muon_momentum(t, 200), 0.91);
  EXPECT_DOUBLE_EQ(muon_momentum(t, 400), 0.97);
  EXPECT_DOUBLE_EQ(muon_momentum(t, 699), 0.97);
  EXPECT_NEAR(muon_momentum(t, 1350), 0.935, 1e-12);
}

TEST(Schedule, WeightDecayIsACosineToZero) {
  TrainConfig t = run_of(100, 0, 0.5);
  t.weight_decay = 0.28;
  EXPECT_DOUBLE_EQ(muon_weight_decay(t, 0), 0.28);
  EXPECT_NEAR(muon_weight_decay(t, 50), 0.14, 1e-15);
  EXPECT_NEAR(muon_weight_decay(t, 100), 0.0, 1e-15);
}

TEST(Schedule, AWarmUpThatNeverEndsIsAWarning) {
  EXPECT_THAT(schedule_warnings(run_of(10, 40, 0.65)),
              ElementsAre("train.warmup_steps = 40 with train.steps = 10: the learning rates reach only 0.25 of their "
                          "values and never fall; set train.warmup_steps = 4 or less, or train longer"));
  EXPECT_THAT(
      schedule_warnings(run_of(40, 40, 0.65)),
      ElementsAre("train.warmup_steps = 40 with train.steps = 40: the learning rates rise until the last step, so "
                  "that the warm-down over 26 steps (train.warmdown_ratio = 0.65) never comes; set "
                  "train.warmup_steps = 14 or less"));
}

TEST(Schedule, AWarmUpWithinTheWarmDownIsAWarningWithTheJump) {
  const TrainConfig t = run_of(60, 40, 0.65);  // warm-down: the last 39 steps
  EXPECT_THAT(
      schedule_warnings(t),
      ElementsAre("train.warmup_steps = 40 with train.steps = 60 and train.warmdown_ratio = 0.65: the warm-down "
                  "begins after step 21, within the warm-up, so that the learning rates jump from 1 at step 39 to "
                  "0.537 at step 40; set train.warmup_steps = 21 or less, or a smaller train.warmdown_ratio"));
  EXPECT_NEAR(lr_scale(t, 40), 0.537, 5e-4);
}

// By the schedule itself: no warning means that the rates reach 1 and never fall by more than in any other step.
TEST(Schedule, ThereIsAWarningExactlyWhereTheRatesDoNotRiseStayAndFall) {
  for (const double ratio : {0.0, 0.3, 0.65, 1.0})
    for (int64_t steps = 1; steps <= 60; ++steps)
      for (int64_t warmup = 0; warmup <= 70; ++warmup) {
        TrainConfig t = run_of(steps, warmup, ratio);
        t.final_lr_frac = 0;
        double peak = 0, fall = 0;
        for (int64_t step = 0; step < steps; ++step) {
          peak = std::max(peak, lr_scale(t, step));
          if (step > 0) fall = std::max(fall, lr_scale(t, step - 1) - lr_scale(t, step));
        }
        const double warmdown = std::nearbyint(ratio * static_cast<double>(steps));
        const bool falls_at_all = warmdown < 2 || lr_scale(t, steps - 1) < 1.0;
        const bool good = peak == 1.0 && (warmdown == 0 || fall <= 1.0 / warmdown + 1e-9) && falls_at_all;
        EXPECT_EQ(schedule_warnings(t).empty(), good) << steps << " steps, warm-up " << warmup << ", ratio " << ratio;
      }
}

TEST(Optimizer, RatesFollowTheWidth) {
  TrainConfig t;
  t.unembedding_lr = 0.008;
  t.embedding_lr = 0.3;
  t.scalar_lr = 0.5;
  EXPECT_DOUBLE_EQ(adamw_rule(ParameterKind::lm_head, t, 768).lr, 0.008);
  EXPECT_DOUBLE_EQ(adamw_rule(ParameterKind::token_embedding, t, 192).lr, 0.6);
  EXPECT_DOUBLE_EQ(adamw_rule(ParameterKind::value_embedding, t, 768).lr, 0.15);
  EXPECT_DOUBLE_EQ(adamw_rule(ParameterKind::resid_lambda, t, 192).lr, 0.005);
  EXPECT_DOUBLE_EQ(adamw_rule(ParameterKind::x0_lambda, t, 192).lr, 0.5);
  EXPECT_DOUBLE_EQ(adamw_rule(ParameterKind::x0_lambda, t, 192).beta1, 0.96);
}

}  // namespace
}  // namespace assay
