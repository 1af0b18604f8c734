// BF16 and FP8 training on CUDA against the same model and optimizer in PyTorch, in FP32 on the same GPU.
#include <gmock/gmock.h>

#include "engine/ops/cuda/cuda_ops.h"
#include "tests/engine/parity_support.h"
#include "tests/engine_cuda/cuda_support.h"

namespace assay::testing {
namespace {

constexpr int64_t steps_run = 20;

struct ParityCase {
  const char* name;
  Precision precision;
  Execution execution;
  int top_k;  // of 4; at 4 no near-tie between two experts is decided by the last bits of a product
  double least_cosine;
  double loss_tolerance;  // relative
};
void PrintTo(const ParityCase& c, std::ostream* out) {
  *out << c.name;
}

class CudaParity : public ::testing::TestWithParam<ParityCase> {};

TEST_P(CudaParity, GradientsAndLossesFollowPyTorch) {
  ASSAY_NEEDS_GPU();
  if (!have_torch()) GTEST_SKIP() << "python3 cannot import torch";
  const ParityCase& want = GetParam();
  TemporaryFolder data;
  write_shards(data.path(), predictable_corpus(100'000, 512));
  RunConfig config = preset_config(Preset::nanochat);  // with lambdas
  config.backend = Backend::cuda;
  config.precision = want.precision;
  config.execution = want.execution;
  config.model.depth = 4;
  config.model.d_model = 256;
  config.model.head_dim = 64;
  config.model.experts = 4;
  config.model.top_k = want.top_k;
  config.model.vocab_size = 512;
  config.model.sequence_len = 256;
  config.model.window_pattern = "SSSL";
  config.train.device_batch = 4;
  config.train.total_batch_tokens = 2 * 4 * 256;
  config.train.steps = 30;
  config.train.warmup_steps = 5;
  config.train.warmdown_ratio = 0.5;
  config.data.path = data.path();
  RunTrainer trainer(config, {}, Backend::cuda, make_cuda_ops(), 0, 1);
  randomise(trainer.model(), trainer.ops(), 0.02);  // no zero matrix: every gradient of the first step counts
  const TorchRun torch = train_in_torch(trainer, config, steps_run);

  first_gradients(trainer, config);
  double least = 1;
  std::string least_name;
  for (const auto& [name, expected] : torch.gradients) {
    const Difference d = compare(read<float>(trainer.ops(), trainer.model().weights().at(name).grad), expected);
    EXPECT_GT(d.cosine, want.least_cosine) << name;
    if (d.cosine < least) least = d.cosine, least_name = name;
  }
  double worst = 0;
  for (size_t step = 0; step < torch.losses.size(); ++step) {
    const double loss = trainer.step().loss, expected = torch.losses[step];
    EXPECT_NEAR(loss, expected, want.loss_tolerance * expected) << "step " << step;
    worst = std::max(worst, std::abs(loss - expected) / expected);
  }
  std::printf("%s: gradients of step 0: least cosine %.6f (%s); loss %.4f -> %.4f, over %d steps within %.2e\n",
              want.name, least, least_name.c_str(), torch.losses.front(), torch.losses.back(),
              static_cast<int>(steps_run), worst);
  EXPECT_LT(torch.losses.back(), 0.9 * torch.losses.front());
}

INSTANTIATE_TEST_SUITE_P(
    Precisions, CudaParity,
    ::testing::Values(ParityCase{"bf16", Precision::bf16, Execution::dynamic_graph, 4, 0.999, 0.01},
                      ParityCase{"bf16_top2", Precision::bf16, Execution::dynamic_graph, 2, 0.99, 0.01},
                      ParityCase{"fp8_noexperts", Precision::fp8_noexperts, Execution::dynamic_graph, 4, 0.97, 0.02},
                      ParityCase{"fp8_experts", Precision::fp8_experts, Execution::dynamic_graph, 4, 0.97, 0.02}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace assay::testing
