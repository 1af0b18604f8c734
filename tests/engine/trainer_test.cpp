#include <gmock/gmock.h>

#include <functional>

#include "engine/check/run_check.h"
#include "trainer_fixture.h"

namespace assay::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(TrainerTest, FillsTheMetricsOfAStep) {
  const RunConfig c = config();
  const auto trainer = Trainer::create(c, {});
  EXPECT_EQ(trainer->next_step(), 0);
  EXPECT_EQ(trainer->resumed_from_step(), -1);
  const StepMetrics m = trainer->step();
  EXPECT_EQ(trainer->next_step(), 1);
  EXPECT_EQ(m.step, 0);
  EXPECT_NEAR(m.loss, std::log(67.0), 0.01);  // the head starts near zero
  EXPECT_GT(m.dt_ms, 0);
  EXPECT_DOUBLE_EQ(m.tok_per_sec, 128 * 1000.0 / m.dt_ms);
  EXPECT_DOUBLE_EQ(m.mfu, 100 * trainer->plan().flops_per_token * m.tok_per_sec / 989.5e12);
  EXPECT_DOUBLE_EQ(m.lr_scale, 0.5);  // two warm-up steps
  EXPECT_GT(m.grad_norm, 0);
  EXPECT_LE(m.expert_load_min, 1.0);
  EXPECT_GE(m.expert_load_max, 1.0);
  EXPECT_DOUBLE_EQ(m.peak_mem_mib, trainer->plan().peak_mem_mib);
  EXPECT_TRUE(std::isnan(m.val_loss));
  EXPECT_GT(m.unix_ms, 1'600'000'000'000);
  EXPECT_EQ(m.tokens, 128);
  EXPECT_DOUBLE_EQ(m.flops, 128 * trainer->plan().flops_per_token);
  EXPECT_EQ(trainer->step().tokens, 256);
  EXPECT_THAT(trainer->notes(), Contains(StartsWith("plan: 2 layers, d = 32, h = 128, 4 experts (top 2)")));
}

TEST_F(TrainerTest, LearnsARepeatedText) {
  write_shards(data_.path(), random_corpus(129, 67, "short"));  // one step's worth, again and again
  for (const Precision p : {Precision::fp32, Precision::bf16, Precision::fp8_noexperts, Precision::fp8_experts}) {
    RunConfig c = config(p);
    c.train.steps = 30;
    const auto all = losses(c, 30);
    EXPECT_NEAR(all.front(), std::log(67.0), 0.01) << to_string(p);
    EXPECT_LT(all.back(), 2.5) << to_string(p);
  }
}

TEST_F(TrainerTest, TwoMicroBatchesEqualOneTwiceAsLarge) {
  RunConfig one = config(), two = config();
  one.train.device_batch = 4;
  one.model.router_bias_rate = two.model.router_bias_rate = 0.01;
  const auto a = losses(one, 5), b = losses(two, 5);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-5 * a[i]) << "step " << i;
}

// ---------------------------------------------------------------------------------------------------- execution modes

TEST_F(TrainerTest, ExecutionModesAgreeInFp32) {
  RunConfig c = config();
  const auto dynamic = losses(c, 6);
  c.execution = Execution::static_graph;
  const auto fixed = losses(c, 6);
  c.execution = Execution::eager;
  const auto eager = losses(c, 6);
  for (size_t i = 0; i < dynamic.size(); ++i) {
    EXPECT_NEAR(eager[i], dynamic[i], 1e-6 * dynamic[i]) << "step " << i;
    EXPECT_NEAR(fixed[i], dynamic[i], 1e-6 * dynamic[i]) << "step " << i;
  }
}

// BF16 and FP8: eager execution rounds relu^2's input once more, so runs differ by BF16's last places.
TEST_F(TrainerTest, ExecutionModesAgreeInLowPrecisionWithinItsRounding) {
  for (const Precision p : {Precision::bf16, Precision::fp8_noexperts, Precision::fp8_experts}) {
    RunConfig c = config(p);
    const auto dynamic = losses(c, 6);
    c.execution = Execution::static_graph;
    const auto fixed = losses(c, 6);
    c.execution = Execution::eager;
    const auto eager = losses(c, 6);
    for (size_t i = 0; i < dynamic.size(); ++i) {
      EXPECT_NEAR(fixed[i], dynamic[i], 2e-3 * dynamic[i]) << to_string(p) << " step " << i;
      EXPECT_NEAR(eager[i], dynamic[i], 2e-3 * dynamic[i]) << to_string(p) << " step " << i;
    }
  }
}

TEST_F(StaticTest, GrowsWithoutDroppingTokens) {
  RunConfig c = tight();
  const auto trainer = Trainer::create(c, {});
  EXPECT_EQ(trainer->plan().static_capacity, 256);
  EXPECT_THAT(trainer->notes(), Contains("static: capacity 256 rows per expert, 0.0 % padding, 1 captures"));
  std::vector<double> fixed;
  for (const StepMetrics& m : train(*trainer, 4)) fixed.push_back(m.loss);
  EXPECT_GT(trainer->plan().static_capacity, 256);
  EXPECT_THAT(trainer->notes(), Contains(AllOf(HasSubstr("static: capacity"), HasSubstr("% padding"),
                                               ::testing::Not(HasSubstr(" 1 captures")))));
  c.execution = Execution::dynamic_graph;
  const auto dynamic = losses(c, 4);
  for (size_t i = 0; i < fixed.size(); ++i) EXPECT_NEAR(fixed[i], dynamic[i], 1e-6 * dynamic[i]) << "step " << i;
}

TEST_F(StaticTest, StopsAtTheRecompileLimitAndSaysWhatToSet) {
  RunConfig c = tight();
  c.recompile_limit = 0;
  const EngineError e = error_of(c);
  EXPECT_EQ(e.reason, FailureReason::plan_error);
  EXPECT_EQ(e.step, 0);
  EXPECT_THAT(e.what(), AllOf(StartsWith("step 0: expert "), HasSubstr(" of layer 0 needs "),
                              HasSubstr("static capacity is 256 and all 0 re-captures of recompile_limit are used"),
                              HasSubstr("set capacity_factor = 1."), HasSubstr("execution = \"dynamic\"")));
}

// --------------------------------------------------------------------------------------------------------- validation

TEST_F(TrainerTest, ValidationIsDueOnTimeAndLeavesTrainingAlone) {
  RunConfig c = config(Precision::fp8_experts);
  c.train.steps = 5;
  const auto plain = train(*Trainer::create(c, {}), 5);
  c.train.val_every = 2;
  c.train.val_tokens = 300;
  const auto trainer = Trainer::create(c, {});
  const auto checked = train(*trainer, 5);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(plain[i].loss, checked[i].loss);
    EXPECT_EQ(plain[i].grad_norm, checked[i].grad_norm);
    const bool due = i == 1 || i == 3 || i == 4;  // every second step and the last
    EXPECT_EQ(std::isfinite(checked[i].val_loss), due) << i;
    if (due) {
      EXPECT_NEAR(checked[i].val_loss, std::log(67.0), 1.0);
    }
  }
  EXPECT_THAT(trainer->notes(), Contains("data: 4000 training tokens, 4 validation micro-batches"));
}

// ------------------------------------------------------------------------------------------------------------- errors

TEST_F(TrainerTest, NamesAMissingDataFolder) {
  RunConfig c = config();
  c.data.path = data_.path() + "/nowhere";
  const EngineError e = error_of(c);
  EXPECT_EQ(e.reason, FailureReason::data_error);
  EXPECT_THAT(e.what(), HasSubstr("/nowhere"));
}

TEST_F(TrainerTest, NamesAVocabularyThatIsTooSmall) {
  RunConfig c = config();
  c.model.vocab_size = 60;
  const EngineError e = error_of(c);
  EXPECT_EQ(e.reason, FailureReason::data_error);
  EXPECT_THAT(e.what(), AllOf(HasSubstr(data_.path()), HasSubstr("model.vocab_size = 60, but"),
                              HasSubstr("holds token 66"), HasSubstr("set model.vocab_size to at least 67")));
}

TEST_F(TrainerTest, NamesMissingShards) {
  RunConfig c = config();
  c.train.val_every = 1;
  std::filesystem::remove(data_.path() + "/text_val_000000.bin");
  const EngineError no_val = error_of(c);
  EXPECT_EQ(no_val.reason, FailureReason::data_error);
  EXPECT_THAT(no_val.what(), HasSubstr("train.val_every = 1 needs validation shards"));
  write_shards(data_.path(), random_corpus(20, 67, "few"));
  const EngineError few = error_of(config());
  EXPECT_EQ(few.reason, FailureReason::data_error);
}

// What plan and enqueue say of a run before it is queued.
TEST_F(TrainerTest, RefusesInTheWordsOfThePlan) {
  const std::vector<std::function<void(RunConfig&)>> changes = {
      [](RunConfig& c) { c.data.path += "/nowhere"; },
      [](RunConfig& c) { c.model.vocab_size = 60; },
      [](RunConfig& c) {
        c.train.device_batch = 100, c.train.total_batch_tokens = 3200;
      },  // 3,201 tokens: training has 4,000
      [](RunConfig& c) { c.train.device_batch = 200, c.train.total_batch_tokens = 6400; },
      [](RunConfig& c) { c.devices = 2, c.train.total_batch_tokens = 256; },
  };
  for (const auto& change : changes) {
    RunConfig c = config();
    c.train.val_every = 1;
    change(c);
    const auto problem = RunChecker().check(c, {}).problem;
    ASSERT_TRUE(problem);
    const EngineError e = error_of(c);
    EXPECT_EQ(e.what(), problem->message);
    EXPECT_EQ(e.reason, problem->reason);
  }
}

TEST_F(TrainerTest, LogsAScheduleThatCannotBe) {
  RunConfig c = config();
  c.train.steps = 10;
  c.train.warmup_steps = 40;
  const auto trainer = Trainer::create(c, {});
  EXPECT_THAT(trainer->notes().front(),
              ::testing::StartsWith("warning: train.warmup_steps = 40 with train.steps = 10"));
  c.train.warmup_steps = 0;
  EXPECT_THAT(Trainer::create(c, {})->notes().front(), ::testing::StartsWith("plan: "));
}

TEST_F(TrainerTest, NamesAFolderWithoutTrainingShards) {
  std::filesystem::remove(data_.path() + "/text_train_000001.bin");
  const EngineError e = error_of(config());
  EXPECT_EQ(e.reason, FailureReason::data_error);
  EXPECT_THAT(e.what(), AllOf(HasSubstr(data_.path()), HasSubstr("\"train\"")));
}

TEST_F(TrainerTest, RefusesWhatThisBuildCannotRun) {
  RunConfig c = config();
  c.devices = 2;
  c.train.total_batch_tokens = 256;
  const EngineError devices = error_of(c);
  EXPECT_EQ(devices.reason, FailureReason::plan_error);
  EXPECT_THAT(devices.what(), HasSubstr("devices = 2; the cpu backend takes at most 1"));
  c = config(Precision::bf16);
  c.backend = Backend::cuda;
  const EngineError cuda = error_of(c);
  // Without a GPU there is no backend; with one there is no attention for heads of 16.
  EXPECT_THAT(cuda.reason, AnyOf(FailureReason::device_error, FailureReason::plan_error));
  EXPECT_THAT(cuda.what(), AnyOf(HasSubstr("backend = \"cuda\": "), HasSubstr("takes 64 or 128")));
  c = config();
  c.model.top_k = 5;
  const EngineError invalid = error_of(c);
  EXPECT_EQ(invalid.reason, FailureReason::config_invalid);
  EXPECT_THAT(invalid.what(), HasSubstr("model.top_k = 5 is more than model.experts = 4"));
}

TEST_F(TrainerTest, NamesTheFirstTensorThatIsNotFinite) {
  RunTrainer trainer(config(), {}, Backend::cpu, make_cpu_ops(), 0, 1);
  trainer.step();
  const auto poison = [&](const char* name, int64_t index, float value) {
    float* weight = trainer.model().weights().at(name).master.as<float>() + index;
    trainer.ops().copy_to_device(weight, &value, sizeof(value));
  };
  const auto error = [&] {
    try {
      trainer.step();
    } catch (const EngineError& e) {
      return e;
    }
    return EngineError(FailureReason::none, "no error");
  };
  // A value of 1e37 in the residual stream: its square is infinite, so the norm's rstd is 0 and the output finite.
  poison("layer0.wqkv", 2 * 32 * 32, 1e38f);
  const EngineError gradient = error();
  EXPECT_EQ(gradient.reason, FailureReason::non_finite);
  EXPECT_EQ(gradient.step, 1);
  EXPECT_THAT(gradient.tensor, StartsWith("gradient "));
  EXPECT_THAT(gradient.what(), AllOf(StartsWith("step 1: gradient "), HasSubstr("nothing was updated")));
  poison("layer0.wqkv", 2 * 32 * 32, 0);
  poison("layer1.w1_shared", 0, 1e30f);  // squared by relu^2
  const EngineError activation = error();
  EXPECT_EQ(activation.reason, FailureReason::non_finite);
  EXPECT_EQ(activation.step, 1);
  EXPECT_EQ(activation.tensor, "activation layer1.hidden_shared");
  EXPECT_THAT(activation.what(), AllOf(StartsWith("step 1: the loss is "), HasSubstr("Lower the learning rates")));
  poison("layer0.router", 0, std::nanf(""));
  EXPECT_EQ(error().tensor, "parameter layer0.router");
}

}  // namespace
}  // namespace assay::testing
