// Small configs, random weights and token shards for tests of the model and the trainer.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "engine/data/shard.h"
#include "engine/model/random.h"
#include "engine/ops/backend.h"
#include "engine/trainer/device_run.h"

namespace assay::testing {

// All features on, in the smallest shapes that exercise them: two layers, a window shorter than the sequence.
inline RunConfig tiny_config() {
  RunConfig c = preset_config(Preset::nanochat);  // with lambdas
  c.backend = Backend::cpu;
  c.precision = Precision::fp32;
  c.model.depth = 2;
  c.model.d_model = 32;
  c.model.head_dim = 16;
  c.model.experts = 4;
  c.model.top_k = 2;
  c.model.vocab_size = 67;
  c.model.sequence_len = 160;  // layer 0 looks back 128 tokens
  c.model.window_pattern = "SL";
  c.train.device_batch = 1;
  c.train.total_batch_tokens = 160;
  c.train.steps = 20;
  c.train.warmup_steps = 2;
  c.data.path = "unused";
  return c;
}

inline std::vector<int32_t> random_tokens(int64_t count, int64_t vocab, const std::string& name) {
  const RandomStream random(7, name);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(random.uniform(static_cast<int64_t>(i)) * static_cast<double>(vocab));
  return tokens;
}

// Every parameter becomes normal noise around its initial value: no zero matrix hides the gradient of another.
inline void randomise(Model& model, Ops& ops, double std) {
  for (Weight& w : model.weights().all()) {
    const RandomStream random(11, "test." + w.spec.name);
    const bool f64 = w.master.dtype == DType::f64;
    std::vector<double> d(static_cast<size_t>(w.master.numel()));
    std::vector<float> f(d.size());
    ops.copy_to_host(f64 ? static_cast<void*>(d.data()) : f.data(), w.master.data, w.master.bytes());
    for (size_t i = 0; i < d.size(); ++i) {
      d[i] = (f64 ? d[i] : static_cast<double>(f[i])) + std * random.normal(static_cast<int64_t>(i));
      f[i] = static_cast<float>(d[i]);
    }
    ops.copy_to_device(w.master.data, f64 ? static_cast<void*>(d.data()) : f.data(), w.master.bytes());
  }
}

template <class T>
std::vector<T> read(Ops& ops, const Tensor& t) {
  std::vector<T> values(static_cast<size_t>(t.numel()));
  ops.copy_to_host(values.data(), t.data, t.bytes());
  return values;
}

// A folder that is gone when the test is.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "assay_test_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void write_shards(const std::string& folder, const std::vector<uint16_t>& train,
                         const std::vector<uint16_t>& val = {}) {
  ASSERT_TRUE(write_shard(folder + "/text_train_000001.bin", train).ok());
  if (val.empty()) return;
  ASSERT_TRUE(write_shard(folder + "/text_val_000000.bin", val).ok());
}

inline std::vector<uint16_t> random_corpus(int64_t count, int64_t vocab, const std::string& name) {
  const std::vector<int32_t> tokens = random_tokens(count, vocab, name);
  return {tokens.begin(), tokens.end()};
}

}  // namespace assay::testing
