// FP8 trains: 200 steps on real text end where BF16 ends.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/data/prepare.h"
#include "engine/trainer/trainer.h"
#include "model_fixture.h"

namespace assay::testing {
namespace {

constexpr const char* text_folder = "/usr/share/doc/linux-doc-6.1/Documentation/networking";

RunConfig text_config(const std::string& data, Precision precision) {
  RunConfig c;
  c.backend = Backend::cpu;
  c.precision = precision;
  c.model.depth = 2;
  c.model.d_model = 64;
  c.model.head_dim = 32;
  c.model.experts = 4;
  c.model.vocab_size = 512;
  c.model.sequence_len = 64;
  c.train.device_batch = 8;
  c.train.total_batch_tokens = 512;
  c.train.steps = 200;
  c.train.warmup_steps = 20;
  c.data.path = data;
  return c;
}

// Mean loss of the last 50 steps.
double tail_loss(const RunConfig& c) {
  const auto trainer = Trainer::create(c, {});
  double sum = 0, first = 0;
  for (int64_t step = 0; step < c.train.steps; ++step) {
    const double loss = trainer->step().loss;
    if (step == 0) first = loss;
    if (step >= c.train.steps - 50) sum += loss / 50;
  }
  std::printf("%-13s %-10s loss %.4f -> %.4f (mean of the last 50 of %d steps)\n", to_string(c.precision).data(),
              to_string(c.fp8.recipe).data(), first, sum, static_cast<int>(c.train.steps));
  EXPECT_LT(sum, 0.85 * first);
  return sum;
}

TEST(TrainerFp8, EndsWithinOnePercentOfBf16OnRealText) {
  if (!std::filesystem::exists(text_folder)) GTEST_SKIP() << text_folder << " is missing; install linux-doc";
  TemporaryFolder folder;
  const std::string data = folder.path() + "/corpus";
  const auto prepared = prepare_data(
      {.inputs = {text_folder}, .output_folder = data, .vocab_size = 512, .max_bytes = 600'000, .val_fraction = 0},
      [](const std::string&) {});
  ASSERT_TRUE(prepared.ok()) << prepared.error().message;
  const double bf16 = tail_loss(text_config(data, Precision::bf16));
  for (const Precision precision : {Precision::fp8_noexperts, Precision::fp8_experts})
    EXPECT_NEAR(tail_loss(text_config(data, precision)), bf16, 0.01 * bf16);
  RunConfig less = text_config(data, Precision::fp8_experts);
  less.fp8.lm_head = false;
  less.fp8.wgrad = Fp8Wgrad::bf16;
  EXPECT_NEAR(tail_loss(less), bf16, 0.01 * bf16);
  RunConfig rowwise = text_config(data, Precision::fp8_experts);
  rowwise.fp8.recipe = Fp8Recipe::rowwise;
  EXPECT_NEAR(tail_loss(rowwise), bf16, 0.01 * bf16);
}

}  // namespace
}  // namespace assay::testing
