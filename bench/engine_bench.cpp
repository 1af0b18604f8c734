// Steps per second of the training engine: one JSON line per configuration. Tokens are random; the first step of each
// configuration is not counted.
//   engine_bench                                     the model of examples/ablation_cpu.toml, every precision and
//   execution engine_bench --precision bf16 --execution dynamic --depth 4 --d-model 256
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "engine/data/shard.h"
#include "engine/ops/error.h"
#include "engine/trainer/trainer.h"

namespace {

using namespace assay;

struct Options {
  std::vector<std::string> precisions = {"bf16", "fp8_noexperts", "fp8_experts"};
  std::vector<std::string> executions = {"dynamic", "static", "eager"};
  std::vector<std::string> recipes = {"tensorwise", "rowwise", "blockwise"};
  int depth = 2;
  int d_model = 128;
  int experts = 4;
  int vocab = 2048;
  int sequence_len = 128;
  int device_batch = 8;
  int steps = 20;
};

template <class E>
E parse(const std::string& text, std::initializer_list<E> values) {
  for (E value : values)
    if (to_string(value) == text) return value;
  throw CLI::ValidationError("\"" + text + "\" is not a legal value");
}

RunConfig config_of(const Options& o, const std::string& data) {
  RunConfig c;
  c.backend = Backend::cpu;
  c.model.depth = o.depth;
  c.model.d_model = o.d_model;
  c.model.head_dim = 64;
  c.model.experts = o.experts;
  c.model.vocab_size = o.vocab;
  c.model.sequence_len = o.sequence_len;
  c.train.device_batch = o.device_batch;
  c.train.total_batch_tokens = static_cast<int64_t>(o.device_batch) * o.sequence_len;
  c.train.steps = o.steps + 1;
  c.data.path = data;
  return c;
}

void write_random_shard(const std::string& folder, const Options& o) {
  std::mt19937 random(1);
  std::vector<uint16_t> tokens(static_cast<size_t>(o.device_batch * o.sequence_len * 4 + 1));
  for (uint16_t& t : tokens) t = static_cast<uint16_t>(random() % static_cast<unsigned>(o.vocab));
  if (const Status s = write_shard(folder + "/bench_train_000001.bin", tokens); !s.ok())
    throw EngineError(FailureReason::data_error, s.error().message);
}

void measure(const RunConfig& c, int steps) {
  const auto trainer = Trainer::create(c, {});
  trainer->step();
  std::vector<double> ms;
  StepMetrics last;
  for (int i = 0; i < steps; ++i) {
    last = trainer->step();
    ms.push_back(last.dt_ms);
  }
  std::sort(ms.begin(), ms.end());
  const double median = ms[ms.size() / 2];
  const double tok_s = static_cast<double>(c.train.total_batch_tokens) * 1000.0 / median;
  const nlohmann::json line = {{"precision", to_string(c.precision)},
                               {"execution", to_string(c.execution)},
                               {"recipe", to_string(c.fp8.recipe)},
                               {"depth", c.model.depth},
                               {"d_model", model_width(c.model)},
                               {"tok_s", tok_s},
                               {"dt_ms", {{"median", median}, {"min", ms.front()}}},
                               {"mfu", 100.0 * trainer->plan().flops_per_token * tok_s / 989.5e12},
                               {"gflop_s", trainer->plan().flops_per_token * tok_s / 1e9},
                               {"peak_mib", last.peak_mem_mib}};
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

void measure_all(const Options& o, const std::string& data) {
  write_random_shard(data, o);
  for (const std::string& precision : o.precisions)
    for (const std::string& execution : o.executions)
      for (const std::string& recipe : o.recipes) {
        RunConfig c = config_of(o, data);
        c.precision =
            parse(precision, {Precision::fp32, Precision::bf16, Precision::fp8_noexperts, Precision::fp8_experts});
        c.execution = parse(execution, {Execution::eager, Execution::static_graph, Execution::dynamic_graph});
        c.fp8.recipe = parse(recipe, {Fp8Recipe::tensorwise, Fp8Recipe::rowwise, Fp8Recipe::blockwise});
        const bool fp8 = c.precision == Precision::fp8_noexperts || c.precision == Precision::fp8_experts;
        if (!fp8 && recipe != o.recipes.front()) continue;  // recipes differ in FP8 only
        measure(c, o.steps);
      }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures training steps.", "engine_bench");
  app.add_option("--precision", o.precisions, "fp32, bf16, fp8_noexperts, fp8_experts");
  app.add_option("--execution", o.executions, "eager, static, dynamic");
  app.add_option("--recipe", o.recipes, "tensorwise, rowwise, blockwise");
  app.add_option("--depth", o.depth, "layers");
  app.add_option("--d-model", o.d_model, "model width");
  app.add_option("--experts", o.experts, "routed experts");
  app.add_option("--vocab", o.vocab, "vocabulary");
  app.add_option("--sequence-len", o.sequence_len, "tokens of a sequence");
  app.add_option("--device-batch", o.device_batch, "sequences of a step");
  app.add_option("--steps", o.steps, "counted steps")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  std::string folder = (std::filesystem::temp_directory_path() / "engine_bench_XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror("mkdtemp");
    return 1;
  }
  int code = 0;
  try {
    measure_all(o, folder);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    code = 1;
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return code;
}
