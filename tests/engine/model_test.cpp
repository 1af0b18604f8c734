#include "engine/model/model.h"

#include <gmock/gmock.h>

#include "model_fixture.h"

namespace assay::testing {
namespace {

struct Case {
  const char* name;
  Execution execution = Execution::dynamic_graph;
  bool value_embeddings = true;
  bool residual_lambdas = true;
  const char* window = "SL";
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class ModelGradient : public ::testing::TestWithParam<Case> {};

RunConfig config_of(const Case& c) {
  RunConfig config = tiny_config();
  config.execution = c.execution;
  config.model.value_embeddings = c.value_embeddings;
  config.model.residual_lambdas = c.residual_lambdas;
  config.model.window_pattern = c.window;
  config.capacity_factor = 2.0;
  return config;
}

// Loss and gradient of one micro-batch in FP64, against central differences of the loss.
TEST_P(ModelGradient, MatchesCentralDifferences) {
  const RunConfig config = config_of(GetParam());
  const auto ops = make_cpu_ops();
  DeviceRun run(config, Backend::cpu, *ops, {.double_precision = true});
  run.model().initialise(1);
  randomise(run.model(), *ops, 0.15);
  const int64_t N = run.plan().shape.tokens;
  const auto tokens = random_tokens(N, 67, "tokens"), targets = random_tokens(N, 67, "targets");
  run.model().begin_step();
  run.model().micro_step(tokens.data(), targets.data(), 1.0 / static_cast<double>(N));
  const auto mean_loss = [&] { return run.evaluate(tokens.data(), targets.data(), 0) / static_cast<double>(N); };
  std::vector<std::vector<double>> gradients;
  for (const Weight& w : run.model().weights().all()) gradients.push_back(read<double>(*ops, w.grad));
  int checked = 0;
  for (size_t p = 0; p < gradients.size(); ++p) {
    const Weight& w = run.model().weights().all()[p];
    const RandomStream random(5, w.spec.name);
    double largest = 0;
    for (double g : gradients[p]) largest = std::max(largest, std::abs(g));
    EXPECT_GT(largest, 0) << w.spec.name;
    for (int64_t i = 0; i < std::min<int64_t>(4, w.master.numel()); ++i) {
      const auto at = static_cast<size_t>(random.uniform(i) * static_cast<double>(w.master.numel()));
      double* value = w.master.as<double>() + at;
      const double kept = *value, step = 1e-5;
      *value = kept + step;
      const double up = mean_loss();
      *value = kept - step;
      const double down = mean_loss();
      *value = kept;
      const double expected = (up - down) / (2 * step);
      EXPECT_NEAR(gradients[p][at], expected, 1e-5 * std::abs(expected) + 1e-6 * largest + 1e-10)
          << w.spec.name << "[" << at << "], largest " << largest;
      checked += std::abs(expected) > 1e-3 * largest;
    }
  }
  EXPECT_GT(checked, static_cast<int>(gradients.size())) << "too few elements with a gradient worth comparing";
}

INSTANTIATE_TEST_SUITE_P(Features, ModelGradient,
                         ::testing::Values(Case{"all_dynamic"}, Case{"all_static", Execution::static_graph},
                                           Case{"all_eager", Execution::eager},
                                           Case{"no_value_embeddings", Execution::dynamic_graph, false},
                                           Case{"no_lambdas", Execution::dynamic_graph, true, false},
                                           Case{"full_windows", Execution::dynamic_graph, true, true, "L"},
                                           Case{"plain", Execution::dynamic_graph, false, false, "L"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Model, LossOfAZeroHeadIsTheLogOfTheVocabulary) {
  const RunConfig config = tiny_config();
  const auto ops = make_cpu_ops();
  DeviceRun run(config, Backend::cpu, *ops);
  run.model().initialise(1);
  ops->fill_zero({run.model().weights().at("lm_head").master});
  run.model().begin_step();
  const int64_t N = run.plan().shape.tokens;
  const auto tokens = random_tokens(N, 67, "tokens"), targets = random_tokens(N, 67, "targets");
  EXPECT_NEAR(run.evaluate(tokens.data(), targets.data(), 0) / static_cast<double>(N), std::log(67.0), 1e-6);
}

TEST(Model, GradientsOfTwoMicroBatchesAdd) {
  RunConfig config = tiny_config();
  config.train.total_batch_tokens = 320;
  const auto ops = make_cpu_ops();
  DeviceRun run(config, Backend::cpu, *ops, {.double_precision = true});
  run.model().initialise(1);
  randomise(run.model(), *ops, 0.1);
  const auto a = random_tokens(160, 67, "a"), b = random_tokens(160, 67, "b");
  std::vector<std::vector<double>> sums;
  for (const auto& [tokens, targets] : {std::pair{a, b}, std::pair{b, a}}) {
    run.model().begin_step();
    run.model().micro_step(tokens.data(), targets.data(), 1.0);
    for (size_t p = 0; p < run.model().weights().all().size(); ++p) {
      const auto g = read<double>(*ops, run.model().weights().all()[p].grad);
      if (sums.size() <= p) sums.emplace_back(g.size());
      for (size_t i = 0; i < g.size(); ++i) sums[p][i] += g[i];
    }
  }
  run.model().begin_step();
  run.model().micro_step(a.data(), b.data(), 1.0);
  run.model().micro_step(b.data(), a.data(), 1.0);
  for (size_t p = 0; p < sums.size(); ++p) {
    const auto g = read<double>(*ops, run.model().weights().all()[p].grad);
    for (size_t i = 0; i < g.size(); ++i)
      ASSERT_NEAR(g[i], sums[p][i], 1e-10 * (1 + std::abs(sums[p][i]))) << run.model().weights().all()[p].spec.name;
  }
  int64_t rows = 0;
  for (int32_t r : run.model().results().expert_rows) rows += r;
  EXPECT_EQ(rows, 2 * 2 * 160 * 2);  // layers * micro-batches * tokens * top_k: dropless
}

std::vector<double> values_of(const ParameterSpec& p, const ModelShape& s, int64_t seed) {
  return initial_values(p, s, seed, 0, p.numel());
}

TEST(Model, InitialWeightsDependOnSeedNameAndIndexOnly) {
  RunConfig config = tiny_config();
  const ModelShape s = model_shape(config);
  const ParameterSpec w{"layer1.wqkv", ParameterKind::qkv, 1, 3, 32, 32};
  const auto first = values_of(w, s, 1);
  EXPECT_EQ(first, values_of(w, s, 1));
  EXPECT_NE(first, values_of(w, s, 2));
  ParameterSpec other = w;
  other.name = "layer0.wqkv";
  EXPECT_NE(first, values_of(other, s, 1));
  ParameterSpec shorter = w;
  shorter.groups = 1;
  const auto prefix = values_of(shorter, s, 1);
  EXPECT_TRUE(std::equal(prefix.begin(), prefix.end(), first.begin()));
}

TEST(Model, InitialWeightsHaveNanochatsSpread) {
  const ModelShape s = model_shape(tiny_config());
  const auto moments = [&](ParameterKind kind, int64_t rows, int64_t cols) {
    const auto v = values_of({"x", kind, -1, 1, rows, cols}, s, 3);
    double mean = 0, square = 0;
    for (double x : v) {
      mean += x / static_cast<double>(v.size());
      square += x * x / static_cast<double>(v.size());
    }
    return std::pair{mean, std::sqrt(square)};
  };
  const double width = 1 / std::sqrt(32.0);
  EXPECT_NEAR(moments(ParameterKind::token_embedding, 1000, 32).second, 0.8, 0.01);
  EXPECT_NEAR(moments(ParameterKind::lm_head, 1000, 32).second, 0.001, 2e-5);
  EXPECT_NEAR(moments(ParameterKind::qkv, 1000, 32).second, width, 0.02 * width);
  EXPECT_NEAR(moments(ParameterKind::qkv, 1000, 32).first, 0, 0.02 * width);
  EXPECT_NEAR(moments(ParameterKind::expert_up, 1000, 32).second, 0.4 * width, 0.02 * width);
  EXPECT_NEAR(moments(ParameterKind::ve_gate, 1000, 12).first, 0.01, 2e-4);
  EXPECT_EQ(moments(ParameterKind::expert_down, 10, 10).second, 0);
  EXPECT_EQ(values_of({"l", ParameterKind::resid_lambda, -1, 1, 1, 2}, s, 1), (std::vector<double>{1.15, 1.15 - 0.10}));
}

TEST(Random, FillingGivesTheSameValuesAsAskingOneByOne) {
  const RandomStream random(3, "stream");
  std::vector<double> uniform(1001), normal(1001);
  random.fill_uniform(0, 500, uniform.data());
  random.fill_uniform(500, 501, uniform.data() + 500);
  random.fill_normal(0, 500, normal.data());
  random.fill_normal(500, 501, normal.data() + 500);
  for (int64_t i = 0; i < 1001; ++i) {
    ASSERT_EQ(uniform[static_cast<size_t>(i)], random.uniform(i)) << i;
    ASSERT_EQ(normal[static_cast<size_t>(i)], random.normal(i)) << i;
  }
}

// Known-answer vectors of the Philox4x32-10 paper's reference implementation (Random123, kat_vectors).
TEST(Random, PhiloxMatchesItsPublishedVectors) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

}  // namespace
}  // namespace assay::testing
