// FP32 training against the same model and optimizer in PyTorch (parity_torch.py): same initial weights, same tokens.
#include <gmock/gmock.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/trainer/run_trainer.h"
#include "model_fixture.h"

namespace assay::testing {
namespace {

constexpr int64_t steps_run = 20;

bool have_torch() {
  return std::system("python3 -c 'import torch' >/dev/null 2>&1") == 0;
}

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

nlohmann::json config_json(const RunConfig& c) {
  nlohmann::json j = {{"depth", c.model.depth},
                      {"d", model_width(c.model)},
                      {"head_dim", c.model.head_dim},
                      {"experts", c.model.experts},
                      {"top_k", c.model.top_k},
                      {"T", c.model.sequence_len},
                      {"softcap", c.model.softcap},
                      {"rope_base", c.model.rope_base},
                      {"router_bias_rate", c.model.router_bias_rate},
                      {"batch", c.train.device_batch},
                      {"micro_batches", grad_accum(c)},
                      {"steps", c.train.steps},
                      {"steps_run", steps_run},
                      {"matrix_lr", c.train.matrix_lr},
                      {"embedding_lr", c.train.embedding_lr},
                      {"unembedding_lr", c.train.unembedding_lr},
                      {"scalar_lr", c.train.scalar_lr},
                      {"weight_decay", c.train.weight_decay},
                      {"warmup_steps", c.train.warmup_steps},
                      {"warmdown_ratio", c.train.warmdown_ratio},
                      {"final_lr_frac", c.train.final_lr_frac}};
  for (int i = 0; i < c.model.depth; ++i) j["windows"].push_back(attention_window(c.model, i));
  return j;
}

// What the loader will hand out, as [.., T + 1] windows: the last target completes each.
std::string windows(const RunConfig& c, int64_t micro_batches) {
  Batches batches(c, model_shape(c), 0, 1);
  std::string bytes;
  const int64_t T = c.model.sequence_len;
  for (int64_t m = 0; m < micro_batches; ++m) {
    batches.next_train();
    for (int64_t b = 0; b < c.train.device_batch; ++b) {
      bytes.append(reinterpret_cast<const char*>(batches.tokens() + b * T), static_cast<size_t>(T) * 4);
      bytes.append(reinterpret_cast<const char*>(batches.targets() + (b + 1) * T - 1), 4);
    }
  }
  return bytes;
}

struct Difference {
  double cosine = 0;
  double relative = 0;  // |a - b| / |b|
};
Difference compare(const std::vector<float>& a, const float* b) {
  double aa = 0, bb = 0, ab = 0, dd = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    aa += x * x;
    bb += y * y;
    ab += x * y;
    dd += (x - y) * (x - y);
  }
  return {ab / std::sqrt(aa * bb), std::sqrt(dd / bb)};
}

TEST(Parity, Fp32TrainingFollowsPyTorch) {
  if (!have_torch()) GTEST_SKIP() << "python3 cannot import torch; install it with: pip install torch==2.13.0";
  TemporaryFolder data, folder;
  // Text-like: a token depends on the one before, so that there is something to learn.
  std::vector<uint16_t> corpus = random_corpus(20'000, 256, "parity");
  for (size_t i = 1; i < corpus.size(); ++i)
    if (corpus[i] % 4 != 0) corpus[i] = static_cast<uint16_t>((corpus[i - 1] * 5 + 3) % 256);
  write_shards(data.path(), corpus);
  const RunConfig config = parity_config(data.path());
  RunTrainer trainer(config, {}, Backend::cpu, make_cpu_ops(), 0, 1);
  Model& model = trainer.model();
  randomise(model, trainer.ops(), 0.02);  // no zero matrix: every gradient of the first step counts

  std::vector<std::vector<float>> storage;
  std::vector<NamedTensor> weights;
  for (const Weight& w : model.weights().all()) {
    storage.push_back(read<float>(trainer.ops(), w.master));
    Tensor host = w.master;
    host.data = storage.back().data();
    weights.push_back({w.spec.name, host});
  }
  write_safetensors(folder.path() + "/weights.safetensors", weights, {});
  const std::string tokens = windows(config, steps_run * grad_accum(config));
  ASSERT_TRUE(write_file_atomically(folder.path() + "/tokens.bin", tokens).ok());
  ASSERT_TRUE(write_file_atomically(folder.path() + "/config.json", config_json(config).dump()).ok());
  const std::string command = "python3 " ASSAY_SOURCE_DIR "/tests/engine/parity_torch.py " + folder.path();
  ASSERT_EQ(std::system(command.c_str()), 0) << command;

  // First-step gradients, parameter by parameter.
  Batches batches(config, model.shape(), 0, 1);
  model.begin_step();
  for (int64_t m = 0; m < grad_accum(config); ++m) {
    batches.next_train();
    model.micro_step(batches.tokens(), batches.targets(), 1.0 / static_cast<double>(config.train.total_batch_tokens));
  }
  const SafetensorsFile reference = read_safetensors(folder.path() + "/gradients.safetensors");
  double least_cosine = 1, most_relative = 0;
  for (const Weight& w : model.weights().all()) {
    const Tensor* expected = reference.find(w.spec.name);
    ASSERT_NE(expected, nullptr) << w.spec.name;
    ASSERT_EQ(expected->numel(), w.grad.numel()) << w.spec.name;
    const Difference d = compare(read<float>(trainer.ops(), w.grad), expected->as<float>());
    EXPECT_GT(d.cosine, 0.9999) << w.spec.name;
    EXPECT_LT(d.relative, 1e-3) << w.spec.name;
    least_cosine = std::min(least_cosine, d.cosine);
    most_relative = std::max(most_relative, d.relative);
  }
  std::printf("gradients of step 0: cosine >= %.9f, relative difference <= %.2e\n", least_cosine, most_relative);

  const auto text = read_file(folder.path() + "/losses.json");
  ASSERT_TRUE(text.ok());
  const auto losses = nlohmann::json::parse(*text).get<std::vector<double>>();
  ASSERT_EQ(losses.size(), static_cast<size_t>(steps_run));
  double worst = 0;
  for (int64_t step = 0; step < steps_run; ++step) {
    const double loss = trainer.step().loss, expected = losses[static_cast<size_t>(step)];
    EXPECT_NEAR(loss, expected, 1e-4 * expected) << "step " << step;
    worst = std::max(worst, std::abs(loss - expected) / expected);
  }
  std::printf("loss: %.4f -> %.4f, relative difference over %d steps <= %.2e\n", losses.front(), losses.back(),
              static_cast<int>(steps_run), worst);
  EXPECT_LT(losses.back(), 0.9 * losses.front());
}

}  // namespace
}  // namespace assay::testing
