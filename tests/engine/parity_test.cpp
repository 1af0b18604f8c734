// FP32 training against the same model and optimizer in PyTorch (parity_torch.py): same initial weights, same tokens.
#include <gmock/gmock.h>

#include "parity_support.h"

namespace assay::testing {
namespace {

constexpr int64_t steps_run = 20;

RunConfig parity_config(const std::string& data) {
  RunConfig c = tiny_config();
  c.model.depth = 4;
  c.model.d_model = 64;
  c.model.head_dim = 32;
  c.model.experts = 8;
  c.model.vocab_size = 256;
  c.model.window_pattern = "SSSL";
  c.train.device_batch = 2;
  c.train.total_batch_tokens = 2 * 2 * 160;
  c.train.steps = 30;
  c.train.warmup_steps = 5;
  c.train.warmdown_ratio = 0.5;
  c.model.router_bias_rate = 0.01;
  c.data.path = data;
  return c;
}

TEST(Parity, Fp32TrainingFollowsPyTorch) {
  if (!have_torch()) GTEST_SKIP() << "python3 cannot import torch; install it with: pip install torch==2.13.0";
  TemporaryFolder data;
  write_shards(data.path(), predictable_corpus(20'000, 256));
  const RunConfig config = parity_config(data.path());
  RunTrainer trainer(config, {}, Backend::cpu, make_cpu_ops(), 0, 1);
  randomise(trainer.model(), trainer.ops(), 0.02);  // no zero matrix: every gradient of the first step counts
  const TorchRun torch = train_in_torch(trainer, config, steps_run);

  first_gradients(trainer, config);
  double least_cosine = 1, most_relative = 0;
  for (const auto& [name, expected] : torch.gradients) {
    const Difference d = compare(read<float>(trainer.ops(), trainer.model().weights().at(name).grad), expected);
    EXPECT_GT(d.cosine, 0.9999) << name;
    EXPECT_LT(d.relative, 1e-3) << name;
    least_cosine = std::min(least_cosine, d.cosine);
    most_relative = std::max(most_relative, d.relative);
  }
  std::printf("gradients of step 0: cosine >= %.9f, relative difference <= %.2e\n", least_cosine, most_relative);

  double worst = 0;
  for (size_t step = 0; step < torch.losses.size(); ++step) {
    const double loss = trainer.step().loss, expected = torch.losses[step];
    EXPECT_NEAR(loss, expected, 1e-4 * expected) << "step " << step;
    worst = std::max(worst, std::abs(loss - expected) / expected);
  }
  std::printf("loss: %.4f -> %.4f, relative difference over %d steps <= %.2e\n", torch.losses.front(),
              torch.losses.back(), static_cast<int>(steps_run), worst);
  EXPECT_LT(torch.losses.back(), 0.9 * torch.losses.front());
}

}  // namespace
}  // namespace assay::testing
