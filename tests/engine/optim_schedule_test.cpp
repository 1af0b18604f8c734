#include <gtest/gtest.h>

#include "engine/optim/optimizer.h"

namespace assay {
namespace {

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
