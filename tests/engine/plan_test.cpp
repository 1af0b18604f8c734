#include "engine/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/limits.h"
#include "engine/plan/parameters.h"
#include "engine/plan/program.h"

namespace assay {
namespace {

using ::testing::Eq;
using ::testing::HasSubstr;

RunConfig d12() {
  RunConfig c = preset_config(Preset::nanochat);  // with lambdas
  c.backend = Backend::cpu;
  c.model.window_pattern = "L";
  c.model.value_embeddings = false;
  c.data.path = "unused";
  return c;
}

// What the arena cannot be smaller than: the largest sum of bytes alive at one time.
size_t peak_live_bytes(const std::vector<PlannedBuffer>& buffers) {
  int last = 0;
  for (const PlannedBuffer& b : buffers) last = std::max(last, b.last);
  std::vector<int64_t> change(static_cast<size_t>(last) + 2);
  for (const PlannedBuffer& b : buffers) {
    change[static_cast<size_t>(b.first)] += static_cast<int64_t>(b.bytes);
    change[static_cast<size_t>(b.last) + 1] -= static_cast<int64_t>(b.bytes);
  }
  int64_t live = 0, peak = 0;
  for (int64_t c : change) peak = std::max(peak, live += c);
  return static_cast<size_t>(peak);
}

void expect_no_overlap(const std::vector<PlannedBuffer>& buffers, size_t arena) {
  for (size_t i = 0; i < buffers.size(); ++i) {
    const PlannedBuffer& a = buffers[i];
    EXPECT_EQ(a.offset % 256, 0u) << a.name;
    EXPECT_LE(a.offset + a.bytes, arena) << a.name;
    for (size_t j = i + 1; j < buffers.size(); ++j) {
      const PlannedBuffer& b = buffers[j];
      const bool together = a.first <= b.last && b.first <= a.last;
      const bool apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
      EXPECT_TRUE(!together || apart) << a.name << " and " << b.name;
    }
  }
}

TEST(Layout, RandomLifetimesNeverOverlapAndStayNearTheLowerBound) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int count = 1 + static_cast<int>(random() % 60), ticks = 1 + static_cast<int>(random() % 40);
    std::vector<PlannedBuffer> buffers;
    for (int i = 0; i < count; ++i) {
      const int first = static_cast<int>(random() % static_cast<unsigned>(ticks));
      const int last = first + static_cast<int>(random() % static_cast<unsigned>(ticks - first));
      buffers.push_back({"b" + std::to_string(i), 1 + random() % 100'000, first, last, 0});
    }
    const size_t arena = lay_out(buffers);
    expect_no_overlap(buffers, arena);
    const size_t bound = peak_live_bytes(buffers);
    EXPECT_GE(arena, bound);
    EXPECT_LE(arena, bound + bound / 2 + static_cast<size_t>(count) * 256);
  }
}

TEST(Layout, BuffersOfOneMomentAreStackedAndOfDifferentMomentsShareMemory) {
  std::vector<PlannedBuffer> buffers = {{"a", 512, 0, 1, 0}, {"b", 256, 1, 2, 0}, {"c", 512, 2, 3, 0}};
  EXPECT_EQ(lay_out(buffers), 768u);
  EXPECT_EQ(buffers[0].offset, buffers[2].offset);
  EXPECT_EQ(buffers[1].offset, 512u);
}

TEST(Plan, CountsTheFlopsOfTheReferenceModel) {
  const auto plan = build_plan(d12(), Backend::cpu);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_NEAR(plan->flops_per_token / 1e6, 887.5, 0.1);
  // Per layer: 4 d^2 attention, 8 d router, 3 experts of 2 d h; and the head.
  EXPECT_EQ(plan->active_matmul_parameters, 12 * (4 * 768 * 768 + 8 * 768 + 3 * 2 * 768 * 1024) + 32768 * 768);
}

TEST(Plan, CountsEveryParameter) {
  RunConfig c = d12();
  c.model.value_embeddings = true;
  const int64_t layer = 4 * 768 * 768 + 8 * 768 + 9 * 2 * 768 * 1024, table = 32768 * 768;
  EXPECT_EQ(count_parameters(c), 2 * table + 12 * layer + 6 * (table + 6 * 12) + 2 * 12);
  c.model.residual_lambdas = false;
  EXPECT_EQ(count_parameters(c), 2 * table + 12 * layer + 6 * (table + 6 * 12));
}

TEST(Plan, ShortWindowsCountFewerFlops) {
  RunConfig c = d12();
  const double full = flops_per_token(c);
  c.model.window_pattern = "SSSL";  // 9 of 12 layers look back 512 tokens
  EXPECT_DOUBLE_EQ(full - flops_per_token(c), 9 * 12.0 * 768 * (2048 - 512));
}

TEST(Plan, ArenaOfTheReferenceModelIsNearItsPeakLiveBytes) {
  const std::pair<Precision, Fp8Wgrad> precisions[] = {{Precision::bf16, Fp8Wgrad::bf16},
                                                       {Precision::fp8_experts, Fp8Wgrad::bf16},
                                                       {Precision::fp8_experts, Fp8Wgrad::fp8}};
  for (const auto& [precision, wgrad] : precisions)
    for (const Execution execution : {Execution::dynamic_graph, Execution::static_graph, Execution::eager}) {
      RunConfig c = d12();
      c.precision = precision;
      c.fp8.wgrad = wgrad;
      c.execution = execution;
      const auto plan = build_plan(c, Backend::cpu);
      ASSERT_TRUE(plan.ok()) << plan.error().message;
      expect_no_overlap(plan->buffers, plan->arena_bytes);
      const double bound = static_cast<double>(peak_live_bytes(plan->buffers));
      EXPECT_LE(static_cast<double>(plan->arena_bytes), 1.01 * bound);
      EXPECT_GT(plan->peak_mem_mib, static_cast<double>(plan->arena_bytes) / 1048576.0);
    }
}

// What cuDNN 9.14 asked for on an H100: 1,537.5 MiB at T = 2,048 and 3,073.5 at 4,096, and 193.5 when it may sum in any
// order.
TEST(Plan, CudaHoldsTheWorkspacesBesideTheArena) {
  RunConfig c = d12();
  const auto beside = [&c] {
    const auto plan = build_plan(c, Backend::cuda);
    EXPECT_TRUE(plan.ok());
    return plan->peak_mem_mib - static_cast<double>(plan->arena_bytes) / 1048576.0;
  };
  const double ops = static_cast<double>(limits::cuda_workspace_bytes) / 1048576.0;
  EXPECT_NEAR(beside(), ops + 1537.5, 0.01);
  c.train.deterministic = false;
  EXPECT_NEAR(beside(), ops + 193.5, 0.01);
  c.train.deterministic = true;
  c.model.sequence_len = 4096;
  c.train.device_batch = 16;
  EXPECT_NEAR(beside(), ops + 3073.5, 0.01);
}

TEST(Plan, StaticCapacityIsTheFairShareTimesTheFactorInSteps) {
  RunConfig c = d12();
  c.execution = Execution::static_graph;
  c.capacity_factor = 1.1;  // 65,536 tokens * 2 / 8 = 16,384 rows; times 1.1 = 18,022.4
  const auto plan = build_plan(c, Backend::cpu);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->static_capacity, 18'048);
  EXPECT_EQ(plan->static_capacity % 128, 0);
  c.capacity_factor = 200;  // an expert never gets more rows than there are tokens
  EXPECT_EQ(build_plan(c, Backend::cpu)->static_capacity, 65'536);
  c.execution = Execution::dynamic_graph;
  EXPECT_EQ(build_plan(c, Backend::cpu)->static_capacity, 0);
}

TEST(Plan, AlignedExpertsMayLeaveRowsBehindTheirOwn) {
  RunConfig c = d12();
  const PlanOptions aligned{.row_alignment = 128};
  const ModelShape tight = model_shape(c), loose = model_shape(c, aligned);
  EXPECT_EQ(tight.routed_rows, 2 * 65'536);
  EXPECT_FALSE(tight.has_gaps);
  EXPECT_EQ(loose.routed_rows, 132'096);  // 131,072 + 8 * 127 = 132,088, to the next multiple of 128
  EXPECT_TRUE(loose.has_gaps);
  c.execution = Execution::static_graph;  // capacities are multiples of 128 already
  EXPECT_EQ(model_shape(c, aligned).routed_rows, model_shape(c).routed_rows);
  EXPECT_FALSE(model_shape(c, aligned).has_gaps);
  const ModelShape odd = model_shape(c, {.static_capacity = 1000, .row_alignment = 128});
  EXPECT_EQ(odd.routed_rows, 8 * 1024);
  EXPECT_TRUE(odd.has_gaps);
}

// The peak is at the logits, where FP8's two copies of what the backward needs weigh as much as one in BF16. An output
// layer in FP8 adds the codes of a chunk of their gradient, with FP8 weight gradients in both orientations.
TEST(Plan, Fp8ExpertsTakeNoMoreMemoryThanBf16ButForScalesAndLessThanTwentyGibibytes) {
  const PlanOptions aligned{.row_alignment = 128};
  RunConfig c = d12();
  c.precision = Precision::bf16;
  const auto bf16 = build_plan(c, Backend::cpu, aligned);
  ASSERT_TRUE(bf16.ok()) << bf16.error().message;
  EXPECT_LT(bf16->arena_bytes, size_t{20} << 30);
  c.precision = Precision::fp8_experts;
  for (const Fp8Wgrad wgrad : {Fp8Wgrad::bf16, Fp8Wgrad::fp8}) {
    c.fp8.wgrad = wgrad;
    const auto fp8 = build_plan(c, Backend::cpu, aligned);
    ASSERT_TRUE(fp8.ok()) << fp8.error().message;
    const size_t codes = static_cast<size_t>(limits::logits_chunk_rows) * 32768, normed = size_t{16} << 20;
    EXPECT_LT(fp8->arena_bytes, bf16->arena_bytes + (wgrad == Fp8Wgrad::fp8 ? 2 : 1) * codes + normed);
    EXPECT_LT(fp8->arena_bytes, size_t{20} << 30);
    c.fp8.lm_head = false;
    const auto fp8_without = build_plan(c, Backend::cpu, aligned);
    ASSERT_TRUE(fp8_without.ok()) << fp8_without.error().message;
    EXPECT_LT(fp8_without->arena_bytes, bf16->arena_bytes + (1 << 20)) << to_string(wgrad);
    c.fp8.lm_head = true;
  }
}

TEST(Plan, RefusesSeveralDevicesOnTheCpu) {
  RunConfig c = d12();
  c.devices = 2;
  const auto plan = build_plan(c, Backend::cpu);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.error().message, Eq("devices = 2; the cpu backend takes at most 1"));
}

TEST(Plan, RefusesShapesTheGpuKernelsDoNotHave) {
  RunConfig c = d12();
  c.backend = Backend::cuda;
  c.model.vocab_size = 1001;
  const auto odd = build_plan(c, Backend::cuda);
  ASSERT_FALSE(odd.ok());
  EXPECT_THAT(odd.error().message, Eq("model.vocab_size = 1001; the cuda backend takes multiples of 8"));
  c.model.vocab_size = 1024;
  c.model.head_dim = 32;
  const auto heads = build_plan(c, Backend::cuda);
  ASSERT_FALSE(heads.ok());
  EXPECT_THAT(heads.error().message, Eq("model.head_dim = 32; the cuda backend takes 64 or 128"));
  const auto refusal = [](auto change) {
    RunConfig c = d12();
    c.backend = Backend::cuda;
    c.precision = Precision::fp8_experts;
    change(c);
    const auto plan = build_plan(c, Backend::cuda);
    return plan.ok() ? "" : plan.error().message;
  };
  EXPECT_EQ(refusal([](RunConfig&) {}), "");
  for (const Fp8Recipe recipe : {Fp8Recipe::rowwise, Fp8Recipe::blockwise})
    EXPECT_EQ(refusal([&](RunConfig& c) { c.fp8.recipe = recipe; }), "") << to_string(recipe);
  EXPECT_THAT(refusal([](RunConfig& c) {
                c.model.sequence_len = 100;
                c.train.device_batch = 1;
                c.train.total_batch_tokens = 100;
              }),
              HasSubstr("tokens of a micro-batch (train.device_batch * model.sequence_len) = 100; the cuda backend in "
                        "FP8 takes at most 4194240, multiples of 16"));
  EXPECT_THAT(refusal([](RunConfig& c) {
                c.devices = 2;
                c.train.device_batch = 4;
              }),
              Eq("devices = 2; the cuda backend in FP8 takes at most 1"));
}

// The kernels' own bounds, each by the key to change, before anything is queued; the CPU has none of them.
TEST(Plan, RefusesSizesTheGpuKernelsDoNotTake) {
  const auto refusal = [](auto change, Backend backend = Backend::cuda) {
    RunConfig c = d12();
    c.precision = Precision::bf16;
    c.model.sequence_len = 128;
    c.train.device_batch = 1;
    c.train.total_batch_tokens = 128;
    change(c);
    const auto plan = build_plan(c, backend);
    return plan.ok() ? "" : plan.error().message;
  };
  const auto experts = [](int n) { return [n](RunConfig& c) { c.model.experts = n; }; };
  EXPECT_EQ(refusal(experts(128)), "");
  EXPECT_EQ(refusal(experts(129)), "model.experts = 129; the cuda backend takes at most 128");
  EXPECT_EQ(refusal(experts(129), Backend::cpu), "");
  const auto top_k = [](int k) { return [k](RunConfig& c) { c.model.experts = 64, c.model.top_k = k; }; };
  EXPECT_EQ(refusal(top_k(32)), "");
  EXPECT_EQ(refusal(top_k(33)), "model.top_k = 33; the cuda backend takes at most 32");
  const auto width = [](int d) { return [d](RunConfig& c) { c.model.depth = 1, c.model.d_model = d; }; };
  EXPECT_EQ(refusal(width(4096)), "");
  EXPECT_EQ(refusal(width(4224)),
            "the model width (model.d_model, or 64 * model.depth) = 4224; the cuda backend takes at most 4096, "
            "multiples of 8");
  EXPECT_THAT(refusal([](RunConfig& c) {
                c.model = {.depth = 1, .d_model = 64, .head_dim = 64, .sequence_len = 128, .window_pattern = "L"};
                c.precision = Precision::fp8_experts;
                c.train.device_batch = 32768 * 2;
                c.train.total_batch_tokens = int64_t{32768} * 2 * 128;
              }),
              HasSubstr(" = 8388608; the cuda backend in FP8 takes at most 4194240"));
  EXPECT_THAT(refusal([](RunConfig& c) {
                c.model = {.depth = 1, .d_model = 1024, .head_dim = 64, .top_k = 1, .sequence_len = 2048};
                c.train.device_batch = 2048;
                c.train.total_batch_tokens = 2048 * 2048;
              }),
              HasSubstr("lower train.device_batch) = 1536; the cuda backend takes at most 1280"));
}

TEST(Plan, RefusesMoreRoutedRowsThanTheirNumbersHold) {
  RunConfig c = d12();
  c.model.sequence_len = 1 << 20;
  c.train.device_batch = 2048;
  c.train.total_batch_tokens = int64_t{1} << 31;
  const auto plan = build_plan(c, Backend::cpu);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.error().message,
              HasSubstr("picks of a micro-batch (train.device_batch * model.sequence_len * model.top_k) = 4294967296"));
}

TEST(Plan, NamesWhatIsWrongWithAConfig) {
  RunConfig c = d12();
  c.model.top_k = 9;
  const auto plan = build_plan(c, Backend::cpu);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.error().message, HasSubstr("model.top_k"));
}

}  // namespace
}  // namespace assay
