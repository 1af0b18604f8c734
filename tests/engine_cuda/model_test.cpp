// The whole model on CUDA: against the CPU backend from the same weights and tokens, and against itself: modes of
// execution, a second run, a resumed run, and what happens when something goes wrong.
#include <gmock/gmock.h>

#include <map>

#include "engine/ops/cuda/cuda_ops.h"
#include "engine/trainer/run_trainer.h"
#include "tests/engine/trainer_fixture.h"
#include "tests/engine_cuda/cuda_support.h"

namespace assay::testing {
namespace {

using ::testing::HasSubstr;

// Small, with every feature: two windows, value embeddings, lambdas; an expert width of 384 is no multiple of a tile.
RunConfig small_config(Precision precision, Execution execution = Execution::dynamic_graph) {
  RunConfig c = preset_config(Preset::nanochat);  // with lambdas
  c.backend = Backend::cuda;
  c.precision = precision;
  c.execution = execution;
  c.model.depth = 3;
  c.model.d_model = 256;
  c.model.head_dim = 64;
  c.model.experts = 4;
  c.model.vocab_size = 512;
  c.model.sequence_len = 256;
  c.model.window_pattern = "SL";
  c.train.device_batch = 3;
  c.train.total_batch_tokens = 768 * 2;
  c.train.steps = 20;
  c.train.warmup_steps = 2;
  c.data.path = "unused";
  return c;
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    aa += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    bb += static_cast<double>(b[i]) * static_cast<double>(b[i]);
    ab += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return ab / std::sqrt(aa * bb);
}

struct Outcome {
  double loss = 0;
  std::map<std::string, std::vector<float>> gradients;
};

// Loss and gradients of two micro-batches from random weights.
Outcome first_step(RunConfig c, Backend backend) {
  c.backend = backend;
  const auto ops = backend == Backend::cuda ? make_cuda_ops() : make_cpu_ops();
  DeviceRun run(c, backend, *ops);
  run.model().initialise(1);
  randomise(run.model(), *ops, 0.02);
  run.model().begin_step();
  const int64_t N = run.plan().shape.tokens;
  for (const char* name : {"first", "second"}) {
    const auto tokens = random_tokens(N, 512, name), targets = random_tokens(N, 512, std::string(name) + " targets");
    run.model().micro_step(tokens.data(), targets.data(), 1.0 / static_cast<double>(2 * N));
  }
  run.model().end_step();
  const StepResults results = run.model().results();
  EXPECT_EQ(results.verdict, 0);
  Outcome o{results.loss_sum / static_cast<double>(2 * N), {}};
  for (const Weight& w : run.model().weights().all()) o.gradients[w.spec.name] = read<float>(*ops, w.grad);
  return o;
}

// Every expert for every token (top 4 of 4), unless said otherwise: where the choice between two experts is nearly a
// tie the last bits of a backend make it, and one token of a few hundred choosing otherwise is seen in a router's
// gradient before any error of a product would be (at top 2 the least cosine in BF16 is 0.998).
struct TwinCase {
  const char* name;
  Precision precision;
  Execution execution = Execution::dynamic_graph;
  Fp8Wgrad wgrad = Fp8Wgrad::automatic;
  bool lm_head = false;
  int top_k = 4;
  double loss_tolerance = 1e-3;  // relative
  double least_cosine = 0.999;
  Fp8Recipe recipe = Fp8Recipe::tensorwise;
  int head_dim = 64;  // 128: QK-norm and RoPE in the projection's epilogue
};
void PrintTo(const TwinCase& c, std::ostream* out) {
  *out << c.name;
}

class CudaModel : public ::testing::TestWithParam<TwinCase> {};

TEST_P(CudaModel, LossAndGradientsAreThoseOfTheCpuBackend) {
  ASSAY_NEEDS_GPU();
  RunConfig c = small_config(GetParam().precision, GetParam().execution);
  c.model.top_k = GetParam().top_k;
  c.fp8.wgrad = GetParam().wgrad;
  c.fp8.lm_head = GetParam().lm_head;
  c.fp8.recipe = GetParam().recipe;
  c.model.head_dim = GetParam().head_dim;
  const Outcome gpu = first_step(c, Backend::cuda), cpu = first_step(c, Backend::cpu);
  EXPECT_NEAR(gpu.loss, cpu.loss, GetParam().loss_tolerance * cpu.loss);
  double least = 1;
  for (const auto& [name, gradient] : cpu.gradients) {
    const double similar = cosine(gpu.gradients.at(name), gradient);
    // The lambdas: three numbers, each a sum over all elements of all tokens that nearly cancels, the targets being
    // random. (parity_test.cpp has targets that can be learned, and no exception.)
    const bool lambdas = gradient.size() <= 3;
    EXPECT_GT(similar, lambdas ? (c.precision == Precision::bf16 ? 0.99 : 0.85) : GetParam().least_cosine) << name;
    if (!lambdas) least = std::min(least, similar);
  }
  std::printf("%s: loss %.6f, the twin %.6f; least cosine of a gradient but the lambdas' %.6f\n", GetParam().name,
              gpu.loss, cpu.loss, least);
}

// FP8 gradients carry the noise of their 2 or 3 mantissa bits: their cosine is lower for that reason, not because a
// product is wrong (the ops' own tests see to that).
constexpr auto dynamic = Execution::dynamic_graph;
INSTANTIATE_TEST_SUITE_P(
    Precisions, CudaModel,
    ::testing::Values(
        TwinCase{"bf16_dynamic", Precision::bf16}, TwinCase{"bf16_static", Precision::bf16, Execution::static_graph},
        TwinCase{"bf16_eager", Precision::bf16, Execution::eager},
        TwinCase{"bf16_top2", Precision::bf16, dynamic, Fp8Wgrad::automatic, false, 2, 1e-3, 0.995},
        TwinCase{"fp8_noexperts", Precision::fp8_noexperts, dynamic, Fp8Wgrad::automatic, false, 4, 5e-3, 0.98},
        TwinCase{"fp8_experts", Precision::fp8_experts, dynamic, Fp8Wgrad::automatic, false, 4, 5e-3, 0.98},
        TwinCase{"fp8_experts_top2", Precision::fp8_experts, dynamic, Fp8Wgrad::automatic, false, 2, 5e-3, 0.97},
        TwinCase{"fp8_experts_lm_head", Precision::fp8_experts, dynamic, Fp8Wgrad::automatic, true, 4, 5e-3, 0.98},
        TwinCase{"fp8_experts_bf16_wgrad", Precision::fp8_experts, dynamic, Fp8Wgrad::bf16, false, 4, 5e-3, 0.98},
        TwinCase{"fp8_experts_bf16_wgrad_lm_head", Precision::fp8_experts, dynamic, Fp8Wgrad::bf16, true, 4, 5e-3,
                 0.98},
        TwinCase{"fp8_experts_eager_lm_head", Precision::fp8_experts, Execution::eager, Fp8Wgrad::automatic, true, 4,
                 5e-3, 0.98},
        TwinCase{"bf16_heads_of_128", Precision::bf16, dynamic, Fp8Wgrad::automatic, false, 4, 1e-3, 0.999,
                 Fp8Recipe::tensorwise, 128},
        TwinCase{"fp8_noexperts_heads_of_128", Precision::fp8_noexperts, dynamic, Fp8Wgrad::automatic, true, 4, 5e-3,
                 0.98, Fp8Recipe::tensorwise, 128},
        TwinCase{"fp8_experts_static_heads_of_128", Precision::fp8_experts, Execution::static_graph,
                 Fp8Wgrad::automatic, true, 4, 5e-3, 0.98, Fp8Recipe::tensorwise, 128},
        TwinCase{"fp8_experts_bf16_wgrad_heads_of_128", Precision::fp8_experts, dynamic, Fp8Wgrad::bf16, true, 4, 5e-3,
                 0.98, Fp8Recipe::tensorwise, 128},
        TwinCase{"fp8_experts_eager", Precision::fp8_experts, Execution::eager, Fp8Wgrad::automatic, false, 4, 5e-3,
                 0.98},
        TwinCase{"rowwise", Precision::fp8_experts, dynamic, Fp8Wgrad::automatic, false, 4, 5e-3, 0.98,
                 Fp8Recipe::rowwise},
        TwinCase{"rowwise_noexperts", Precision::fp8_noexperts, dynamic, Fp8Wgrad::automatic, false, 4, 5e-3, 0.98,
                 Fp8Recipe::rowwise},
        TwinCase{"rowwise_static_lm_head", Precision::fp8_experts, Execution::static_graph, Fp8Wgrad::automatic, true,
                 4, 5e-3, 0.98, Fp8Recipe::rowwise},
        TwinCase{"blockwise", Precision::fp8_experts, dynamic, Fp8Wgrad::automatic, false, 4, 5e-3, 0.98,
                 Fp8Recipe::blockwise},
        TwinCase{"blockwise_top2", Precision::fp8_experts, dynamic, Fp8Wgrad::automatic, false, 2, 5e-3, 0.97,
                 Fp8Recipe::blockwise},
        TwinCase{"blockwise_eager_lm_head", Precision::fp8_experts, Execution::eager, Fp8Wgrad::automatic, true, 4,
                 5e-3, 0.98, Fp8Recipe::blockwise}),
    [](const auto& test) { return std::string(test.param.name); });

class CudaTrainer : public ::testing::Test {
 protected:
  CudaTrainer() { write_shards(data_.path(), random_corpus(40000, 512, "train"), random_corpus(4000, 512, "val")); }

  RunConfig config(Precision precision, Execution execution = Execution::dynamic_graph) const {
    RunConfig c = small_config(precision, execution);
    c.data.path = data_.path();
    return c;
  }
  static std::unique_ptr<RunTrainer> make(const RunConfig& c, const TrainerOptions& options = {}) {
    return std::make_unique<RunTrainer>(c, options, Backend::cuda, make_cuda_ops(), 0, 1);
  }
  static std::vector<StepMetrics> train(Trainer& trainer, int64_t until, bool ahead = true) {
    std::vector<StepMetrics> metrics;
    while (trainer.next_step() < until) metrics.push_back(trainer.step(ahead && trainer.next_step() + 1 < until));
    return metrics;
  }
  static std::vector<double> losses(const RunConfig& c, bool ahead = true) {
    std::vector<double> values;
    for (const StepMetrics& m : train(*make(c), c.train.steps, ahead)) values.push_back(m.loss);
    return values;
  }

  TemporaryFolder data_;
};

TEST_F(CudaTrainer, TheSameSeedGivesTheSameLossesAheadOrNot) {
  ASSAY_NEEDS_GPU();
  for (const Precision precision : {Precision::bf16, Precision::fp8_experts}) {
    const RunConfig c = config(precision);
    const auto first = losses(c);
    EXPECT_EQ(first, losses(c)) << to_string(precision);
    EXPECT_EQ(first, losses(c, false)) << to_string(precision);
  }
}

TEST_F(CudaTrainer, ModesOfExecutionAgree) {
  ASSAY_NEEDS_GPU();
  for (const Precision precision : {Precision::bf16, Precision::fp8_noexperts, Precision::fp8_experts}) {
    RunConfig c = config(precision);
    c.model.head_dim = 128;
    const auto dynamic = losses(c);
    for (const Execution execution : {Execution::static_graph, Execution::eager}) {
      c.execution = execution;
      const auto other = losses(c);
      ASSERT_EQ(dynamic.size(), other.size());
      for (size_t i = 0; i < dynamic.size(); ++i)
        EXPECT_NEAR(other[i], dynamic[i], 0.01 * dynamic[i]) << to_string(precision) << " " << to_string(execution);
    }
  }
}

TEST_F(CudaTrainer, EveryRecipeLearnsTheSame) {
  ASSAY_NEEDS_GPU();
  const auto tensorwise = losses(config(Precision::fp8_experts));
  for (const Fp8Recipe recipe : {Fp8Recipe::rowwise, Fp8Recipe::blockwise}) {
    RunConfig c = config(Precision::fp8_experts);
    c.fp8.recipe = recipe;
    const auto other = losses(c);
    EXPECT_EQ(other, losses(c, false)) << to_string(recipe);
    ASSERT_EQ(tensorwise.size(), other.size());
    for (size_t i = 0; i < other.size(); ++i)
      EXPECT_NEAR(other[i], tensorwise[i], 0.01 * tensorwise[i]) << to_string(recipe) << " step " << i;
  }
}

TEST_F(CudaTrainer, ResumesBitForBit) {
  ASSAY_NEEDS_GPU();
  for (const Precision precision : {Precision::bf16, Precision::fp8_experts}) {
    const RunConfig c = config(precision);
    TemporaryFolder checkpoints;
    const auto whole = train(*make(c), 10);
    {
      const auto first = make(c, {checkpoints.path()});
      train(*first, 6);
      first->save_checkpoint();
    }
    const auto second = make(c, {checkpoints.path()});
    EXPECT_EQ(second->resumed_from_step(), 6);
    const auto resumed = train(*second, 10);
    ASSERT_EQ(resumed.size(), 4u);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(resumed[i].loss, whole[i + 6].loss) << to_string(precision);
      EXPECT_EQ(resumed[i].grad_norm, whole[i + 6].grad_norm) << to_string(precision);
    }
  }
}

TEST_F(CudaTrainer, ASteadyStepWaitsForNothingAndAllocatesNothing) {
  ASSAY_NEEDS_GPU();
  for (const Precision precision : {Precision::bf16, Precision::fp8_experts}) {
    const auto trainer = make(config(precision));
    while (trainer->next_step() < 8) trainer->step(true);
    const OpsCounters before = trainer->ops().counters();
    while (trainer->next_step() < 16) trainer->step(true);
    const OpsCounters after = trainer->ops().counters();
    EXPECT_EQ(after.host_syncs, before.host_syncs);
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(after.captures, 2);  // the first micro-step of a step replaces gradients, the second adds to them
    EXPECT_GT(after.launches, before.launches);
  }
}

TEST_F(CudaTrainer, TakesTheMemoryThatThePlanSays) {
  ASSAY_NEEDS_GPU();
  for (const int head_dim : {64, 128})
    for (const int sequence_len : {256, 1024})
      for (const bool deterministic : {true, false}) {
        RunConfig c = config(Precision::fp8_experts);
        c.model.head_dim = head_dim;
        c.model.sequence_len = sequence_len;
        c.train.total_batch_tokens = c.train.device_batch * sequence_len;
        c.train.deterministic = deterministic;
        RunTrainer trainer(c, {}, Backend::cuda, make_cuda_ops({.deterministic = deterministic}), 0, 1);
        train(trainer, 4);
        const double taken = static_cast<double>(trainer.ops().counters().device_bytes_peak) / (1024.0 * 1024.0);
        EXPECT_NEAR(taken, trainer.plan().peak_mem_mib, 0.5)
            << "heads of " << head_dim << ", T " << sequence_len << (deterministic ? ", deterministic" : "");
      }
}

TEST_F(CudaTrainer, StaticGrowsWithoutChangingTheLoss) {
  ASSAY_NEEDS_GPU();
  RunConfig c;
  for (const Precision precision : {Precision::fp8_experts, Precision::bf16}) {
    c = config(precision, Execution::static_graph);
    c.capacity_factor = 1.0;
    const auto tight = make(c);
    const auto metrics = train(*tight, 6);
    EXPECT_GT(tight->plan().static_capacity, 768 * 2 / 4);
    c.capacity_factor = 4.0;
    const auto roomy = train(*make(c), 6);
    const double tolerance = precision == Precision::bf16 ? 1e-3 : 5e-3;
    for (size_t i = 0; i < 6; ++i)
      EXPECT_NEAR(metrics[i].loss, roomy[i].loss, tolerance * roomy[i].loss) << to_string(precision) << " step " << i;
  }
  c.capacity_factor = 1.0;
  c.recompile_limit = 0;
  const auto stuck = make(c);
  try {
    train(*stuck, 6);
    ADD_FAILURE() << "no error";
  } catch (const EngineError& e) {
    EXPECT_EQ(e.reason, FailureReason::plan_error);
    EXPECT_THAT(e.what(), HasSubstr("recompile_limit"));
  }
}

TEST_F(CudaTrainer, NamesTheFirstTensorThatIsNotFiniteAndUpdatesNothing) {
  ASSAY_NEEDS_GPU();
  const auto trainer = make(config(Precision::bf16));
  train(*trainer, 4);
  const Weight& w = trainer->model().weights().at("layer1.wqkv");
  const float bad = std::numeric_limits<float>::infinity();
  trainer->ops().copy_to_device(w.master.data, &bad, sizeof(bad));
  const Weight& other = trainer->model().weights().at("layer2.w1");
  const auto before = read<float>(trainer->ops(), other.master);
  try {
    trainer->step(true);
    ADD_FAILURE() << "no error";
  } catch (const EngineError& e) {
    EXPECT_EQ(e.reason, FailureReason::non_finite);
    EXPECT_EQ(e.step, 4);
    EXPECT_EQ(e.tensor, "parameter layer1.wqkv");
  }
  EXPECT_EQ(before, read<float>(trainer->ops(), other.master));
}

TEST_F(CudaTrainer, SaysWhichAllocationDidNotFit) {
  ASSAY_NEEDS_GPU();
  const auto ops = make_cuda_ops();
  try {
    ops->allocate(size_t{1} << 42, "the arena of the run");
    ADD_FAILURE() << "no error";
  } catch (const EngineError& e) {
    EXPECT_EQ(e.reason, FailureReason::out_of_memory);
    EXPECT_THAT(e.what(), HasSubstr("the arena of the run: asked for 4398046511104 bytes"));
  }
  void* memory = ops->allocate(1 << 20, "a small piece");  // the failure is not sticky
  ops->release(memory);
}

}  // namespace
}  // namespace assay::testing
