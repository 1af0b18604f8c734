// The same micro-batch in every precision, recipe and way of execution: gradients point where FP32's point, and sharing
// memory between buffers changes nothing.
#include <gtest/gtest.h>

#include <cstring>

#include "engine/optim/optimizer.h"
#include "model_fixture.h"

namespace assay::testing {
namespace {

struct Case {
  std::string name;
  Precision precision;
  Execution execution;
  Fp8Recipe recipe = Fp8Recipe::tensorwise;
  Fp8Wgrad wgrad = Fp8Wgrad::bf16;
  bool lm_head = false;
  Fp8Format grad_format = Fp8Format::e5m2;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Execution x : {Execution::dynamic_graph, Execution::static_graph, Execution::eager}) {
    const std::string mode(to_string(x));
    cases.push_back({"fp32_" + mode, Precision::fp32, x});
    cases.push_back({"bf16_" + mode, Precision::bf16, x});
    for (const Precision p : {Precision::fp8_noexperts, Precision::fp8_experts}) {
      const std::string name = std::string(to_string(p)) + "_" + mode;
      cases.push_back({name + "_tensorwise", p, x});
      cases.push_back({name + "_rowwise", p, x, Fp8Recipe::rowwise, Fp8Wgrad::bf16, true});
      cases.push_back({name + "_blockwise", p, x, Fp8Recipe::blockwise, Fp8Wgrad::bf16, true, Fp8Format::e4m3});
      cases.push_back({name + "_everything", p, x, Fp8Recipe::tensorwise, Fp8Wgrad::fp8, true});
    }
  }
  return cases;
}

RunConfig config_of(const Case& c) {
  RunConfig config = tiny_config();
  config.precision = c.precision;
  config.execution = c.execution;
  config.fp8 = {c.recipe, c.wgrad, c.grad_format, c.lm_head};
  config.model.d_model = 128;  // blockwise scales need it
  config.model.head_dim = 64;
  config.model.sequence_len = 64;
  config.train.device_batch = 3;
  config.train.total_batch_tokens = 192;
  return config;
}

// Gradients of a step of one micro-batch from fixed random weights, by parameter.
std::vector<std::vector<float>> gradients(const RunConfig& config) {
  const auto ops = make_cpu_ops();
  DeviceRun run(config, Backend::cpu, *ops);
  run.model().initialise(1);
  randomise(run.model(), *ops, 0.03);
  const auto tokens = random_tokens(192, 67, "tokens"), targets = random_tokens(192, 67, "targets");
  run.model().begin_step();
  run.model().micro_step(tokens.data(), targets.data(), 1.0 / 192);
  std::vector<std::vector<float>> all;
  for (const Weight& w : run.model().weights().all()) all.push_back(read<float>(*ops, w.grad));
  return all;
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
    ab += static_cast<double>(a[i]) * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

class ModelPrecision : public ::testing::TestWithParam<Case> {};

TEST_P(ModelPrecision, GradientsPointWhereThoseOfFp32Do) {
  const RunConfig config = config_of(GetParam());
  RunConfig exact = config;
  exact.precision = Precision::fp32;
  exact.execution = Execution::dynamic_graph;
  static const std::vector<std::vector<float>> expected = gradients(exact);
  const auto actual = gradients(config);
  const auto names = list_parameters(config);
  const double least = config.precision == Precision::fp32   ? 0.999999
                       : config.precision == Precision::bf16 ? 0.995
                                                             : 0.97;
  for (size_t p = 0; p < names.size(); ++p) EXPECT_GT(cosine(actual[p], expected[p]), least) << names[p].name;
}

// Two steps with the plan's layout, with a place of its own for every buffer, and with rows between the experts' own,
// all starting from memory full of NaN: a buffer that is read before it is written, or overwritten while it is needed,
// gives other bits.
TEST_P(ModelPrecision, SharingMemoryAndAligningRowsChangeNothing) {
  const RunConfig config = config_of(GetParam());
  const auto train = [&](const RunPlan& plan) {
    const auto ops = make_cpu_ops();
    const DeviceMemory memory(*ops, plan.arena_bytes, "test");
    std::memset(memory.data(), 0xFF, plan.arena_bytes);
    Model model(config, plan, *ops, memory.data());
    model.initialise(1);
    const auto tokens = random_tokens(192, 67, "tokens"), targets = random_tokens(192, 67, "targets");
    for (int64_t step = 0; step < 2; ++step) {
      model.begin_step();
      model.micro_step(tokens.data(), targets.data(), 1.0 / 192);
      model.end_step();
      optimizer_step(model.weights(), config, step, config.precision == Precision::fp32, model.verdict(), *ops);
      EXPECT_EQ(model.results().verdict, 0);
    }
    EXPECT_EQ(model.first_non_finite(tokens.data(), targets.data()), "");  // blames no row that nobody wrote
    std::vector<std::vector<float>> all;
    for (const Weight& w : model.weights().all()) all.push_back(read<float>(*ops, w.master));
    return all;
  };
  Result<RunPlan> plan = build_plan(config, Backend::cpu);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  RunPlan apart = *plan;
  apart.arena_bytes = 0;
  for (PlannedBuffer& b : apart.buffers) {
    b.offset = apart.arena_bytes;
    apart.arena_bytes += (b.bytes + 255) / 256 * 256;
  }
  ASSERT_GT(apart.arena_bytes, plan->arena_bytes);
  const auto shared = train(*plan), separate = train(apart);
  const auto names = list_parameters(config);
  for (size_t p = 0; p < names.size(); ++p) {
    EXPECT_EQ(shared[p], separate[p]) << names[p].name;
    for (float x : shared[p]) ASSERT_TRUE(std::isfinite(x)) << names[p].name;
  }
  if (config.execution == Execution::static_graph) return;  // its capacities are aligned
  const Result<RunPlan> aligned = build_plan(config, Backend::cpu, {.row_alignment = 128});
  ASSERT_TRUE(aligned.ok()) << aligned.error().message;
  ASSERT_TRUE(aligned->shape.has_gaps);
  const auto spread = train(*aligned);
  for (size_t p = 0; p < names.size(); ++p) EXPECT_EQ(shared[p], spread[p]) << names[p].name;
}

INSTANTIATE_TEST_SUITE_P(All, ModelPrecision, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace assay::testing
