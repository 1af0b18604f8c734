#include "spec/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "spec/run_outcome.h"

namespace assay {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RunConfig valid_config() {
  RunConfig config;
  config.data.path = "/data";
  return config;
}

std::vector<std::string> problems_after(const std::function<void(RunConfig&)>& change) {
  RunConfig config = valid_config();
  change(config);
  std::vector<std::string> messages;
  for (const ConfigProblem& problem : validate(config)) messages.push_back(problem.path + ": " + problem.message);
  return messages;
}

TEST(DerivedSizes, AreThoseOfTheModelDesign) {
  ModelConfig m;  // d12, heads of 128, k = 2
  EXPECT_EQ(model_width(m), 768);
  EXPECT_EQ(expert_width(m), 1024);
  m.depth = 24;
  EXPECT_EQ(model_width(m), 1536);
  EXPECT_EQ(expert_width(m), 2048);
  m = {.depth = 3, .head_dim = 128};
  EXPECT_EQ(model_width(m), 256) << "64*3 rounded up to a head";
  EXPECT_EQ(expert_width(m), 384) << "4*256/3 = 341.3, nearest multiple of 128";
  m = {.depth = 1, .head_dim = 16, .top_k = 7};
  EXPECT_EQ(model_width(m), 64);
  EXPECT_EQ(expert_width(m), 128) << "never below 128";
  m = {.depth = 9, .head_dim = 64, .top_k = 3};
  EXPECT_EQ(expert_width(m), 640) << "4*576/4 = 4.5*128 goes up";
  m = {.depth = 12, .d_model = 512};
  EXPECT_EQ(model_width(m), 512);
}

TEST(DerivedSizes, WindowsFollowThePatternAndEndLong) {
  ModelConfig m = {.depth = 6, .sequence_len = 2048, .window_pattern = "SSSL"};
  std::vector<int> windows;
  for (int layer = 0; layer < m.depth; ++layer) windows.push_back(attention_window(m, layer));
  EXPECT_THAT(windows, ElementsAre(512, 512, 512, 2048, 512, 2048));
  m.sequence_len = 1000;
  EXPECT_EQ(attention_window(m, 0), 256) << "ceil(1000/4) up to a multiple of 128";
  m.sequence_len = 64;
  EXPECT_EQ(attention_window(m, 0), 64) << "never more than the sequence";
  EXPECT_EQ(attention_window(m, 5), 64);
}

TEST(DerivedSizes, ValueEmbeddingsAlternateAndIncludeTheLastLayer) {
  const auto layers_with = [](int depth) {
    std::vector<int> layers;
    for (int layer = 0; layer < depth; ++layer)
      if (has_value_embedding({.depth = depth}, layer)) layers.push_back(layer);
    return layers;
  };
  EXPECT_THAT(layers_with(4), ElementsAre(1, 3));
  EXPECT_THAT(layers_with(5), ElementsAre(0, 2, 4));
  EXPECT_FALSE(has_value_embedding({.depth = 4, .value_embeddings = false}, 3));
}

TEST(DerivedSizes, GradAccumCountsMicroBatches) {
  RunConfig c;
  EXPECT_EQ(grad_accum(c), 8) << "524288 / (1 * 32 * 2048)";
  c.devices = 8;
  EXPECT_EQ(grad_accum(c), 1);
}

TEST(Validate, TheDefaultsOnlyLackData) {
  EXPECT_THAT(validate(valid_config()), IsEmpty());
  EXPECT_THAT(problems_after([](RunConfig& c) { c.data.path = ""; }),
              ElementsAre("data.path: data.path is empty; expected the folder of the token shards"));
}

struct RangeCase {
  std::function<void(RunConfig&)> change;
  std::string problem;
};

TEST(Validate, OneProblemPerFieldOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<RangeCase> cases = {
      {[](RunConfig& c) { c.devices = 0; }, "devices: devices = 0 is out of range; expected 1 to 64"},
      {[](RunConfig& c) { c.devices = 65; }, "devices: devices = 65 is out of range; expected 1 to 64"},
      {[](RunConfig& c) { c.capacity_factor = 0.99; },
       "capacity_factor: capacity_factor = 0.99 is out of range; expected 1 to 256"},
      {[&](RunConfig& c) { c.capacity_factor = nan; },
       "capacity_factor: capacity_factor = nan is out of range; expected 1 to 256"},
      {[](RunConfig& c) { c.recompile_limit = -1; },
       "recompile_limit: recompile_limit = -1 is out of range; expected 0 to 64"},
      {[](RunConfig& c) { c.model.depth = 0; }, "model.depth: model.depth = 0 is out of range; expected 1 to 256"},
      {[](RunConfig& c) { c.model.d_model = -128; },
       "model.d_model: model.d_model = -128 is out of range; expected 0 to 65536"},
      {[](RunConfig& c) { c.model.head_dim = 0; },
       "model.head_dim: model.head_dim = 0 is not supported; expected a multiple of 8 from 16 to 256"},
      {[](RunConfig& c) { c.model.head_dim = 100; },
       "model.head_dim: model.head_dim = 100 is not supported; expected a multiple of 8 from 16 to 256"},
      {[](RunConfig& c) { c.model.head_dim = 8; },
       "model.head_dim: model.head_dim = 8 is not supported; expected a multiple of 8 from 16 to 256"},
      {[](RunConfig& c) { c.model.head_dim = 264; },
       "model.head_dim: model.head_dim = 264 is not supported; expected a multiple of 8 from 16 to 256"},
      {[](RunConfig& c) { c.model.experts = 257; },
       "model.experts: model.experts = 257 is out of range; expected 1 to 256"},
      {[](RunConfig& c) { c.model.top_k = 0; }, "model.top_k: model.top_k = 0 is out of range; expected 1 to 256"},
      {[](RunConfig& c) { c.model.top_k = 9; },
       "model.top_k: model.top_k = 9 is more than model.experts = 8; expected 1 to 8"},
      {[](RunConfig& c) { c.model.vocab_size = 1; },
       "model.vocab_size: model.vocab_size = 1 is out of range; expected 2 to 65536"},
      {[](RunConfig& c) { c.model.vocab_size = 65537; },
       "model.vocab_size: model.vocab_size = 65537 is out of range; expected 2 to 65536"},
      {[](RunConfig& c) { c.model.sequence_len = 0; },
       "model.sequence_len: model.sequence_len = 0 is out of range; expected 1 to 1048576"},
      {[](RunConfig& c) { c.model.window_pattern = ""; },
       "model.window_pattern: model.window_pattern = \"\" is not a pattern; expected 1 to 256 letters S (short) or L "
       "(long), such as \"SSSL\""},
      {[](RunConfig& c) { c.model.window_pattern = "SsL"; },
       "model.window_pattern: model.window_pattern = \"SsL\" is not a pattern; expected 1 to 256 letters S (short) or "
       "L "
       "(long), such as \"SSSL\""},
      {[](RunConfig& c) { c.model.softcap = 0; },
       "model.softcap: model.softcap = 0 is out of range; expected a finite number above 0"},
      {[&](RunConfig& c) { c.model.softcap = inf; },
       "model.softcap: model.softcap = inf is out of range; expected a finite number above 0"},
      {[](RunConfig& c) { c.model.router_bias_rate = -0.1; },
       "model.router_bias_rate: model.router_bias_rate = -0.1 is out of range; expected a finite number, 0 or more"},
      {[](RunConfig& c) { c.model.rope_base = 0; },
       "model.rope_base: model.rope_base = 0 is out of range; expected a finite number above 0"},
      {[](RunConfig& c) { c.train.steps = 0; }, "train.steps: train.steps = 0 is out of range; expected 1 to 1000000"},
      {[](RunConfig& c) { c.train.device_batch = 0; },
       "train.device_batch: train.device_batch = 0 is out of range; expected 1 to 2147483648"},
      {[](RunConfig& c) { c.train.total_batch_tokens = 0; },
       "train.total_batch_tokens: train.total_batch_tokens = 0 is out of range; expected 1 to 2147483648"},
      {[](RunConfig& c) { c.train.seed = -1; },
       "train.seed: train.seed = -1 is out of range; expected 0 to 9007199254740992"},
      {[](RunConfig& c) { c.train.matrix_lr = 0; },
       "train.matrix_lr: train.matrix_lr = 0 is out of range; expected a finite number above 0"},
      {[&](RunConfig& c) { c.train.embedding_lr = nan; },
       "train.embedding_lr: train.embedding_lr = nan is out of range; expected a finite number above 0"},
      {[&](RunConfig& c) { c.train.unembedding_lr = inf; },
       "train.unembedding_lr: train.unembedding_lr = inf is out of range; expected a finite number above 0"},
      {[](RunConfig& c) { c.train.scalar_lr = -1; },
       "train.scalar_lr: train.scalar_lr = -1 is out of range; expected a finite number above 0"},
      {[](RunConfig& c) { c.train.weight_decay = -1; },
       "train.weight_decay: train.weight_decay = -1 is out of range; expected a finite number, 0 or more"},
      {[](RunConfig& c) { c.train.warmup_steps = -1; },
       "train.warmup_steps: train.warmup_steps = -1 is out of range; expected 0 to 1000000"},
      {[](RunConfig& c) { c.train.warmdown_ratio = 1.5; },
       "train.warmdown_ratio: train.warmdown_ratio = 1.5 is out of range; expected 0 to 1"},
      {[](RunConfig& c) { c.train.final_lr_frac = -0.5; },
       "train.final_lr_frac: train.final_lr_frac = -0.5 is out of range; expected 0 to 1"},
      {[](RunConfig& c) { c.train.val_every = -1; },
       "train.val_every: train.val_every = -1 is out of range; expected 0 to 1000000"},
      {[](RunConfig& c) { c.train.val_tokens = 0; },
       "train.val_tokens: train.val_tokens = 0 is out of range; expected 1 to 2147483648"},
      {[](RunConfig& c) { c.train.checkpoint_every = -1; },
       "train.checkpoint_every: train.checkpoint_every = -1 is out of range; expected 0 to 1000000"},
      {[](RunConfig& c) { c.train.timeout_s = -1; },
       "train.timeout_s: train.timeout_s = -1 is out of range; expected 0 to 31536000"},
      {[](RunConfig& c) { c.data.path = std::string("a\0b", 3); },
       "data.path: data.path holds control characters or is not UTF-8; expected a readable path"},
      {[](RunConfig& c) { c.data.path = "a\xff"; },
       "data.path: data.path holds control characters or is not UTF-8; expected a readable path"},
      {[](RunConfig& c) { c.data.path = std::string(5000, 'a'); },
       "data.path: data.path is 5000 bytes long; expected at most 4096"},
      {[](RunConfig& c) { c.fault.step = -1; }, "fault.step: fault.step = -1 is out of range; expected 0 to 1000000"},
      {[](RunConfig& c) { c.fault.attempts = 0; },
       "fault.attempts: fault.attempts = 0 is out of range; expected 1 to 100"},
  };
  for (const RangeCase& test : cases) EXPECT_THAT(problems_after(test.change), ElementsAre(test.problem));
}

TEST(Validate, EdgesOfTheRangesAreFine) {
  EXPECT_THAT(problems_after([](RunConfig& c) {
                c.model.head_dim = 16, c.model.depth = 1, c.model.experts = 1, c.model.top_k = 1,
                c.model.vocab_size = 2;
                c.capacity_factor = 1, c.recompile_limit = 0, c.train.warmdown_ratio = 1, c.train.final_lr_frac = 0;
                c.train.steps = 1, c.train.weight_decay = 0, c.model.router_bias_rate = 0, c.train.seed = 0;
                c.model.window_pattern = "L", c.data.path = "données/コーパス";
              }),
              IsEmpty());
}

TEST(Validate, WidthsMustFitHeads) {
  EXPECT_THAT(
      problems_after([](RunConfig& c) { c.model.d_model = 200; }),
      ElementsAre("model.d_model: model.d_model = 200 is not divisible by model.head_dim = 128; expected a multiple "
                  "of it, or 0 to take 64*depth rounded up"));
}

TEST(Validate, BatchesMustDivide) {
  EXPECT_THAT(
      problems_after([](RunConfig& c) { c.devices = 3; }),
      ElementsAre("train.total_batch_tokens: train.total_batch_tokens = 524288 is not divisible by devices * "
                  "train.device_batch * model.sequence_len = 3 * 32 * 2048 = 196608; expected a multiple of 196608"));
  EXPECT_THAT(problems_after([](RunConfig& c) {
                c.devices = 64, c.train.device_batch = std::numeric_limits<int>::max(), c.model.sequence_len = 1 << 20;
              }),
              ElementsAre(::testing::HasSubstr("= 64 * 2147483647 * 1048576 = 144115188008747008;")))
      << "no overflow";
}

TEST(Validate, Fp32IsForTheCpu) {
  const auto with_backend = [](Backend backend) {
    return problems_after([&](RunConfig& c) { c.precision = Precision::fp32, c.backend = backend; });
  };
  EXPECT_THAT(with_backend(Backend::automatic), IsEmpty());
  EXPECT_THAT(with_backend(Backend::cpu), IsEmpty());
  EXPECT_THAT(
      with_backend(Backend::cuda),
      ElementsAre("precision: precision = fp32 is the reference of the CPU backend; expected backend = \"cpu\" or "
                  "\"auto\", or another precision"));
}

TEST(Validate, Fp8WeightGradientsNeedTensorwiseScales) {
  const auto with_recipe = [](Fp8Recipe recipe) {
    return problems_after([&](RunConfig& c) {
      c.precision = Precision::fp8_experts, c.fp8.wgrad = Fp8Wgrad::fp8, c.fp8.recipe = recipe;
    });
  };
  EXPECT_THAT(with_recipe(Fp8Recipe::tensorwise), IsEmpty());
  EXPECT_THAT(
      with_recipe(Fp8Recipe::rowwise),
      ElementsAre("fp8.wgrad: fp8.wgrad = fp8 does not go with fp8.recipe = rowwise: weight gradients sum over "
                  "tokens, so rowwise scales would need a second quantisation along tokens; expected fp8.recipe = "
                  "\"tensorwise\" or fp8.wgrad = \"bf16\""));
  EXPECT_THAT(with_recipe(Fp8Recipe::blockwise), ElementsAre(::testing::HasSubstr("so blockwise scales would need")));
  EXPECT_THAT(
      problems_after([](RunConfig& c) { c.precision = Precision::fp8_experts, c.fp8.recipe = Fp8Recipe::rowwise; }),
      IsEmpty());
}

TEST(Validate, Fp8NeedsWidthsInWholeTiles) {
  const auto with = [](Precision precision, Fp8Recipe recipe, int d_model, int head_dim) {
    return problems_after([&](RunConfig& c) {
      c.precision = precision, c.fp8.recipe = recipe, c.model.d_model = d_model, c.model.head_dim = head_dim;
    });
  };
  EXPECT_THAT(with(Precision::bf16, Fp8Recipe::blockwise, 72, 24), IsEmpty());
  EXPECT_THAT(with(Precision::fp8_experts, Fp8Recipe::tensorwise, 96, 24), IsEmpty());
  EXPECT_THAT(
      with(Precision::fp8_noexperts, Fp8Recipe::tensorwise, 72, 24),
      ElementsAre("precision: precision = fp8_noexperts with fp8.recipe = tensorwise needs the model width d = 72 and "
                  "the expert width h = 128 to be multiples of 16; expected another model.d_model, model.depth or "
                  "model.head_dim"));
  EXPECT_THAT(with(Precision::fp8_experts, Fp8Recipe::blockwise, 320, 64),
              ElementsAre(::testing::HasSubstr("d = 320 and the expert width h = 384 to be multiples of 128;")));
}

TEST(Validate, SeveralMistakesAreReportedTogetherAndOnlyOnce) {
  EXPECT_THAT(problems_after([](RunConfig& c) {
                c.model.head_dim = 0, c.model.top_k = 0, c.train.device_batch = 0, c.precision = Precision::fp8_experts;
              }),
              ElementsAre(::testing::StartsWith("model.head_dim:"), ::testing::StartsWith("model.top_k:"),
                          ::testing::StartsWith("train.device_batch:")));
}

TEST(Names, EnumsAreSpelledAsDocumented) {
  EXPECT_EQ(to_string(Precision::fp8_noexperts), "fp8_noexperts");
  EXPECT_EQ(to_string(Execution::static_graph), "static");
  EXPECT_EQ(to_string(Backend::automatic), "auto");
  EXPECT_EQ(to_string(Fp8Recipe::blockwise), "blockwise");
  EXPECT_EQ(to_string(Fp8Wgrad::fp8), "fp8");
  EXPECT_EQ(to_string(Fp8Format::e5m2), "e5m2");
  EXPECT_EQ(to_string(FaultKind::exit_code), "exit_code");
  EXPECT_EQ(to_string(FaultKind::non_finite), "non_finite");
}

template <class E>
void expect_round_trip(E last) {
  EXPECT_EQ(words_of(last).size(), static_cast<size_t>(last) + 1);
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    const auto read = parse_word<E>(to_string(static_cast<E>(i)));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(*read, static_cast<E>(i));
  }
  EXPECT_EQ(find_word<E>("no such word"), std::nullopt);
  EXPECT_FALSE(parse_word<E>("").ok());
}

TEST(Names, WordsForOutcomesReadBack) {
  expect_round_trip(RunState::cancelled);
  expect_round_trip(AttemptState::ended);
  expect_round_trip(AttemptResult::not_started);
  expect_round_trip(Phase::checkpoint);
  expect_round_trip(FailureReason::internal);
  expect_round_trip(StopReason::worker_stopped);
  expect_round_trip(AttemptNews::refused);
  EXPECT_EQ(parse_word<Phase>("lod").error().message, "\"lod\" is no phase; expected load, step or checkpoint");
  EXPECT_EQ(to_string(FailureReason::out_of_memory), "out_of_memory");
  EXPECT_EQ(to_string(RunState::retry_wait), "retry_wait");
}

}  // namespace
}  // namespace assay
