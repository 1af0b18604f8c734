// The same model and optimizer in PyTorch (parity_torch.py), from the same weights and on the same tokens as a trainer.
#pragma once

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/trainer/run_trainer.h"
#include "model_fixture.h"
#include "tests/support/paths.h"

namespace assay::testing {

inline bool have_torch() {
  return std::system("python3 -c 'import torch' >/dev/null 2>&1") == 0;
}

// Text-like: a token depends on the one before, so that there is something to learn.
inline std::vector<uint16_t> predictable_corpus(int64_t count, int vocab) {
  std::vector<uint16_t> corpus = random_corpus(count, vocab, "parity");
  for (size_t i = 1; i < corpus.size(); ++i)
    if (corpus[i] % 4 != 0) corpus[i] = static_cast<uint16_t>((corpus[i - 1] * 5 + 3) % vocab);
  return corpus;
}

inline nlohmann::json config_json(const RunConfig& c, int64_t steps_run) {
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
inline std::string windows(const RunConfig& c, int64_t micro_batches) {
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
inline Difference compare(const std::vector<float>& a, const std::vector<float>& b) {
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

struct TorchRun {
  std::map<std::string, std::vector<float>> gradients;  // of the first step, before the optimizer
  std::vector<double> losses;
};
// Trains in PyTorch (FP32; on the GPU where PyTorch finds one) what `trainer`, which has made no step, is about to.
inline TorchRun train_in_torch(RunTrainer& trainer, const RunConfig& config, int64_t steps_run) {
  TemporaryFolder folder;
  std::vector<std::vector<float>> storage;
  std::vector<NamedTensor> weights;
  for (const Weight& w : trainer.model().weights().all()) {
    storage.push_back(read<float>(trainer.ops(), w.master));
    Tensor host = w.master;
    host.data = storage.back().data();
    weights.push_back({w.spec.name, host});
  }
  write_safetensors(folder.path() + "/weights.safetensors", weights, {});
  const std::string tokens = windows(config, steps_run * grad_accum(config));
  EXPECT_TRUE(write_file_atomically(folder.path() + "/tokens.bin", tokens).ok());
  EXPECT_TRUE(write_file_atomically(folder.path() + "/config.json", config_json(config, steps_run).dump()).ok());
  const std::string command = "python3 " + source_dir() + "/tests/engine/parity_torch.py " + folder.path();
  TorchRun run;
  if (std::system(command.c_str()) != 0) {
    ADD_FAILURE() << command;
    return run;
  }
  const SafetensorsFile file = read_safetensors(folder.path() + "/gradients.safetensors");
  for (const Weight& w : trainer.model().weights().all()) {
    const Tensor* gradient = file.find(w.spec.name);
    if (gradient == nullptr || gradient->numel() != w.grad.numel()) {
      ADD_FAILURE() << "no gradient of that size from PyTorch: " << w.spec.name;
      continue;
    }
    run.gradients[w.spec.name].assign(gradient->as<float>(), gradient->as<float>() + gradient->numel());
  }
  const auto text = read_file(folder.path() + "/losses.json");
  EXPECT_TRUE(text.ok());
  if (text.ok()) run.losses = nlohmann::json::parse(*text).get<std::vector<double>>();
  EXPECT_EQ(run.losses.size(), static_cast<size_t>(steps_run));
  run.losses.resize(static_cast<size_t>(steps_run));
  return run;
}

// The gradients of the first step, left in the model; the trainer's own first step makes them again.
inline void first_gradients(RunTrainer& trainer, const RunConfig& config) {
  Batches batches(config, trainer.model().shape(), 0, 1);
  trainer.model().begin_step();
  for (int64_t m = 0; m < grad_accum(config); ++m) {
    batches.next_train();
    trainer.model().micro_step(batches.tokens(), batches.targets(),
                               1.0 / static_cast<double>(config.train.total_batch_tokens));
  }
}

}  // namespace assay::testing
