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
    context_.host_memory_bytes = int64_t{8} << 30;
  }
  void add_gpus(const std::string& worker, int n, int64_t bytes = int64_t{80} << 30) {
    for (int i = 0; i < n; ++i)
      context_.devices.push_back({{worker + std::to_string(i), worker, "cuda", "gpu", bytes, "free"}, "host", 0, ""});
  }
  RunForecast check() {
    ExperimentSpec spec;
    spec.runs.push_back({"a", "cell", 1, config_});
    return forecast(spec, context_).at(0);
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
  EXPECT_EQ(check().problem, "devices = 2: the cuda backend runs on one device; set devices = 1");
  config_.devices = 1;
  config_.train.device_batch *= 2;
  EXPECT_EQ(check().problem, "");
}

TEST_F(PreflightTest, AutomaticMeansAGpuWhereThereIsOne) {
  config_.backend = Backend::automatic;
  context_.host_memory_bytes = 1;
  EXPECT_THAT(check().problem, HasSubstr("the largest CPU device has 0 MiB"));
  add_gpus("a", 1);
  EXPECT_EQ(check().problem, "");
}

TEST_F(PreflightTest, MemoryThatDoesNotExist) {
  config_.backend = Backend::cuda;
  add_gpus("a", 1, int64_t{4} << 20);
  EXPECT_THAT(check().problem, MatchesRegex("needs [0-9]+ MiB a device, the largest GPU has 4 MiB"));
}

TEST_F(PreflightTest, DataThatIsNotThere) {
  config_.train.val_every = 10;
  EXPECT_EQ(check().problem, "train.val_every: " + folder_.path() + " has no *_val_*.bin shards");
  config_.train.val_every = 0;
  config_.train.device_batch = 64;
  config_.train.total_batch_tokens = 4096;
  EXPECT_EQ(check().problem,
            "data.path: " + folder_.path() + " holds 4096 training tokens, one micro-batch needs 4097");
  config_.data.path = "/nowhere";
  EXPECT_THAT(check().problem, HasSubstr("data.path: cannot read the corpus folder /nowhere"));
}

TEST_F(PreflightTest, FaultsOnlyWhereTheyAreAllowed) {
  config_.fault.kind = FaultKind::crash;
  EXPECT_EQ(check().problem, "fault: injected faults need a daemon started with --allow-fault-injection");
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
