#include "daemon/preflight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/data/shard.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

class PreflightTest : public testing::Test {
 protected:
  PreflightTest() {
    EXPECT_TRUE(write_shard(folder_.file("x_train_000.bin"), std::vector<uint16_t>(4096, 7)).ok());
    config_.backend = Backend::cpu;
    config_.precision = Precision::bf16;
    config_.execution = Execution::eager;
    config_.model = {
        .depth = 2, .d_model = 128, .head_dim = 64, .experts = 4, .top_k = 2, .vocab_size = 256, .sequence_len = 64};
    config_.train.total_batch_tokens = 256;
    config_.train.device_batch = 2;
    config_.train.steps = 100;
    config_.data.path = folder_.path();
    context_.host_memory = {int64_t{8} << 30, int64_t{8} << 30};
  }
  void add_gpus(const std::string& worker, int n, int64_t bytes = int64_t{80} << 30) {
    for (int i = 0; i < n; ++i)
      context_.devices.push_back({{worker + std::to_string(i), worker, DeviceKind::cuda, "gpu", bytes}, "host", 0, ""});
  }
  RunForecast check() {
    ExperimentSpec spec;
    spec.runs.push_back({"a", "cell", 1, config_});
    return forecast(spec, context_).runs.at(0);
  }

  TempFolder folder_;
  RunConfig config_;
  PreflightContext context_;
};

TEST_F(PreflightTest, WhatFitsHasNoProblem) {
  context_.step_ms = [](const std::string&) { return 20.0; };
  const RunForecast ok = check();
  EXPECT_EQ(ok.problem, "");
  EXPECT_GT(ok.parameters, 0);
  EXPECT_GT(ok.peak_mem_mib, 0);
  EXPECT_GT(ok.mflop_per_token, 0);
  EXPECT_DOUBLE_EQ(ok.estimated_seconds, 2.0);
}

TEST_F(PreflightTest, DevicesThatDoNotExist) {
  config_.devices = 2;
  EXPECT_EQ(check().problem, "devices: needs 2, but no worker has more than 1 CPU device");
  config_.backend = Backend::cuda;
  EXPECT_EQ(check().problem, "backend: no worker has a GPU (see `assay devices`)");
  add_gpus("a", 1);
  add_gpus("b", 1);  // two GPUs, but of two hosts
  EXPECT_EQ(check().problem, "devices: needs 2, but no worker has more than 1 GPU");
  add_gpus("c", 2);
  EXPECT_EQ(check().problem, "devices = 2; the cuda backend takes at most 1");
  config_.devices = 1;
  config_.train.device_batch *= 2;
  EXPECT_EQ(check().problem, "");
}

TEST_F(PreflightTest, AutomaticMeansAGpuWhereThereIsOne) {
  config_.backend = Backend::automatic;
  context_.host_memory = {1, 1};
  EXPECT_THAT(check().problem, HasSubstr("the largest CPU device has 0 MiB"));
  EXPECT_EQ(check().device, DeviceKind::cpu);
  add_gpus("a", 1);
  config_.train.device_batch *= 2;  // 16 rows at least
  EXPECT_EQ(check().problem, "");
  EXPECT_EQ(check().device, DeviceKind::cuda);
  EXPECT_EQ(check().device_name, "gpu");
  config_.precision = Precision::fp32;  // which only the CPU computes
  EXPECT_EQ(check().device, DeviceKind::cpu);
}

TEST_F(PreflightTest, MemoryThatDoesNotExist) {
  config_.backend = Backend::cuda;
  add_gpus("a", 1, int64_t{4} << 20);
  EXPECT_THAT(check().problem,
              MatchesRegex("needs [0-9]+ MiB a device, the largest GPU has 4 MiB, of which 1024 are kept "
                           "for the driver's own; use a smaller model, train.device_batch or "
                           "model.sequence_len"));
  EXPECT_TRUE(check().too_large);
}

// The machine has it, but other programs do at the moment: that it swaps is said, and nothing more.
TEST_F(PreflightTest, MemoryThatIsNotAvailableNow) {
  config_.model.depth = 12;
  config_.model.d_model = 1024;
  const double needed = check().peak_mem_mib;
  ASSERT_GT(needed, 1024);
  EXPECT_EQ(check().shortage, "");
  context_.host_memory.available_bytes = int64_t{1} << 30;
  EXPECT_EQ(check().problem, "");
  EXPECT_THAT(check().shortage, HasSubstr("but only 1024 of this host's 8192 MiB are available now and it would swap"));
  context_.devices.push_back(
      {{"cpu:h", "w", DeviceKind::cpu, "a CPU", int64_t{8} << 30, DeviceState::busy}, "host", 7, "ours"});
  EXPECT_EQ(check().shortage, "") << "a run of ours has it, and will give it back";
  // What the system needs is nobody's, however idle the host.
  context_.devices[0].device.memory_bytes = static_cast<int64_t>(needed + 100) << 20;
  EXPECT_THAT(check().problem, HasSubstr("of which 512 are kept for the system"));
}

TEST_F(PreflightTest, TokensBeyondTheVocabulary) {
  ASSERT_TRUE(write_shard(folder_.file("x_train_001.bin"), {1, 2, 256, 3}).ok());
  EXPECT_EQ(check().problem, "model.vocab_size = 256, but " + folder_.file("x_train_001.bin") +
                                 " holds token 256; set model.vocab_size to at least 257 or prepare the text with a "
                                 "smaller tokenizer");
  EXPECT_FALSE(check().too_large);
  config_.model.vocab_size = 264;
  EXPECT_EQ(check().problem, "");
}

// One line for what concerns many runs.
TEST_F(PreflightTest, WarningsComeOnceWithTheirNumbers) {
  ExperimentSpec spec;
  config_.train.steps = 10;  // warm-up: 40
  for (const char* name : {"a", "b", "c"}) spec.runs.push_back({name, name, 1, config_});
  spec.runs[2].config.train.steps = 1000;
  const Forecast checked = forecast(spec, context_);
  EXPECT_THAT(
      checked.warnings,
      testing::ElementsAre("train.warmup_steps = 40 with train.steps = 10: the learning rates reach only 0.25 of "
                           "their values and never fall; set train.warmup_steps = 4 or less, or train longer (run "
                           "a and 1 more)"));
  EXPECT_THAT(checked.notes,
              testing::ElementsAre(folder_.path() + ": 4096 training tokens, 0 of validation, largest token "
                                                    "7 (all looked at)"));
}

TEST_F(PreflightTest, TotalTimeIsSharedByTheDevicesThereAre) {
  context_.step_ms = [](const std::string&) { return 100.0; };
  ExperimentSpec spec;
  for (const char* name : {"a", "b", "c"}) spec.runs.push_back({name, name, 1, config_});
  spec.runs[2].config.train.steps = 50;
  const auto total = [&](const std::vector<size_t>& chosen) {
    return total_seconds(spec, forecast(spec, context_), context_, chosen);
  };
  EXPECT_DOUBLE_EQ(total({0, 1, 2}), 25) << "10, 10 and 5 s on one CPU";
  EXPECT_DOUBLE_EQ(total({2}), 5);
  EXPECT_DOUBLE_EQ(total({}), 0);
  add_gpus("a", 2);
  for (PlannedRun& run : spec.runs) run.config.backend = Backend::cuda;
  EXPECT_DOUBLE_EQ(total({0, 1, 2}), 12.5);
  EXPECT_DOUBLE_EQ(total({0}), 10) << "no run is shared out";
  context_.step_ms = [](const std::string&) { return 0.0; };
  EXPECT_DOUBLE_EQ(total({0, 1, 2}), 0) << "not known";
}

TEST_F(PreflightTest, DataThatIsNotThere) {
  config_.train.val_every = 10;
  EXPECT_EQ(check().problem, "train.val_every = 10 needs validation shards (files with \"val\" in the name), and " +
                                 folder_.path() + " has none; set train.val_every = 0 or add them");
  ASSERT_TRUE(write_shard(folder_.file("x_val_000.bin"), std::vector<uint16_t>(8, 7)).ok());
  EXPECT_EQ(
      check().problem,
      "train.val_every = 10: the validation text of " + folder_.path() +
          " has 8 tokens, but one micro-batch needs 129 (devices * train.device_batch * model.sequence_len = 1 * 2 * "
          "64, and the last target); prepare the text with a larger --val-fraction, lower train.device_batch or "
          "model.sequence_len, or set train.val_every = 0");
  config_.train.val_every = 0;
  config_.train.device_batch = 64;
  config_.train.total_batch_tokens = 4096;
  EXPECT_EQ(check().problem,
            "data.path: " + folder_.path() +
                " holds 4096 training tokens, but one micro-batch needs 4097 (devices * train.device_batch * "
                "model.sequence_len = 1 * 64 * 64, and the last target); use more text, or lower train.device_batch or "
                "model.sequence_len");
  config_.data.path = "/nowhere";
  EXPECT_THAT(check().problem, HasSubstr("data.path: cannot read the corpus folder /nowhere"));
}

TEST_F(PreflightTest, FaultsOnlyWhereTheyAreAllowed) {
  config_.fault.kind = FaultKind::crash;
  EXPECT_THAT(check().problem,
              HasSubstr(": injected faults are not allowed here; start assayd with --allow-fault-injection, or"));
  context_.allow_faults = true;
  EXPECT_EQ(check().problem, "");
}

TEST_F(PreflightTest, LikeRunsTakeLikeTime) {
  RunConfig like = config_;
  like.train.seed = 99;
  like.train.steps = 7;
  like.train.matrix_lr = 0.5;
  like.data.path = "/elsewhere";
  EXPECT_EQ(speed_key(like), speed_key(config_));
  for (const auto& change : std::vector<std::function<void(RunConfig&)>>{
           [](RunConfig& c) { c.model.depth = 3; }, [](RunConfig& c) { c.precision = Precision::fp32; },
           [](RunConfig& c) { c.execution = Execution::static_graph; }, [](RunConfig& c) { c.train.device_batch = 1; },
           [](RunConfig& c) { c.train.total_batch_tokens = 512; }, [](RunConfig& c) { c.devices = 2; }}) {
    RunConfig other = config_;
    change(other);
    EXPECT_NE(speed_key(other), speed_key(config_));
  }
}

}  // namespace
}  // namespace assay
