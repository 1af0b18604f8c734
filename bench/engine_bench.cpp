// Speed of the training engine: one JSON line per configuration, on random tokens, optimizer included. On a Hopper GPU
// the default is the reference model (depth 12, 8 experts, top 2, 65,536 tokens a step, no value embeddings, full
// windows), on the CPU that of examples/ablation_cpu.toml.
//   engine_bench                                            every precision and execution
//   engine_bench --precision bf16 --execution dynamic --accum 8
//   engine_bench --precision fp8_experts --execution dynamic --profile   and a table of its ops
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <random>
#include <vector>

#include "base/gpu.h"
#include "engine/data/shard.h"
#include "engine/ops/error.h"
#include "profile/measure.h"

namespace {

using namespace assay;

struct Options {
  std::string backend = "auto";
  std::vector<std::string> precisions = {"bf16", "fp8_noexperts", "fp8_experts"};
  std::vector<std::string> executions = {"dynamic", "static", "eager"};
  std::vector<std::string> coalesce_tiling = {"on"};
  std::vector<std::string> recipes, wgrads = {"auto"}, grad_formats = {"e5m2"};
  std::optional<int> depth, d_model, experts, top_k, vocab, sequence_len, device_batch;
  int accum = 1;
  int steps = 20;
  bool lm_head_bf16 = false, value_embeddings = false, nondeterministic = false, profile = false;
};

template <class E>
E parse(const std::string& option, const std::string& text, std::initializer_list<E> values) {
  for (E value : values)
    if (to_string(value) == text) return value;
  throw CLI::ValidationError(option, "\"" + text + "\" is not a legal value");
}

bool is_on(const std::string& option, const std::string& text) {
  if (text == "on" || text == "off") return text == "on";
  throw CLI::ValidationError(option, "\"" + text + "\" is neither on nor off");
}

std::string usable_gpu() {
  const GpuInventory inventory = list_gpus();
  for (const GpuFacts& gpu : visible_gpus(inventory.gpus, std::getenv("CUDA_VISIBLE_DEVICES")))
    if (why_unusable(gpu, inventory.driver_version).empty()) return gpu.name;
  return {};
}

RunConfig config_of(const Options& o, bool gpu, const std::string& data) {
  RunConfig c;
  c.backend = gpu ? Backend::cuda : Backend::cpu;
  c.model.depth = o.depth.value_or(gpu ? 12 : 2);
  c.model.d_model = o.d_model.value_or(gpu ? 0 : 128);
  c.model.head_dim = gpu ? 128 : 64;
  c.model.experts = o.experts.value_or(gpu ? 8 : 4);
  c.model.top_k = o.top_k.value_or(2);
  c.model.vocab_size = o.vocab.value_or(gpu ? 32768 : 2048);
  c.model.sequence_len = o.sequence_len.value_or(gpu ? 2048 : 128);
  if (gpu) {
    c.model.window_pattern = "L";
    c.model.value_embeddings = o.value_embeddings;
  }
  c.train.device_batch = o.device_batch.value_or(gpu ? 32 : 8);
  c.train.total_batch_tokens = static_cast<int64_t>(c.train.device_batch) * c.model.sequence_len * o.accum;
  // More than are made: no step is the last, which has nothing to run ahead to.
  c.train.steps = bench::warm_up_steps + bench::most_windows * o.steps + 2;
  c.train.deterministic = !o.nondeterministic;
  c.fp8.lm_head = !o.lm_head_bf16;
  c.data.path = data;
  return c;
}

// Every combination of the axes of FP8; one where nothing is FP8.
void add_fp8(const Options& o, RunConfig c, std::vector<RunConfig>* configs) {
  for (const std::string& recipe : o.recipes)
    for (const std::string& wgrad : o.wgrads)
      for (const std::string& format : o.grad_formats) {
        c.fp8.recipe = parse("--recipe", recipe, {Fp8Recipe::tensorwise, Fp8Recipe::rowwise, Fp8Recipe::blockwise});
        c.fp8.wgrad = parse("--wgrad", wgrad, {Fp8Wgrad::automatic, Fp8Wgrad::bf16, Fp8Wgrad::fp8});
        c.fp8.grad_format = parse("--grad-format", format, {Fp8Format::e4m3, Fp8Format::e5m2});
        const bool first = recipe == o.recipes.front() && wgrad == o.wgrads.front() && format == o.grad_formats.front();
        if (bench::uses_fp8(c) || first) configs->push_back(c);
      }
}

// Every combination of the axes.
std::vector<RunConfig> configs_of(const Options& o, const RunConfig& base) {
  std::vector<RunConfig> configs;
  for (const std::string& precision : o.precisions)
    for (const std::string& execution : o.executions)
      for (const std::string& tiling : o.coalesce_tiling) {
        RunConfig c = base;
        c.precision = parse("--precision", precision,
                            {Precision::fp32, Precision::bf16, Precision::fp8_noexperts, Precision::fp8_experts});
        c.execution =
            parse("--execution", execution, {Execution::eager, Execution::static_graph, Execution::dynamic_graph});
        c.coalesce_tiling = is_on("--coalesce-tiling", tiling);
        add_fp8(o, c, &configs);
      }
  return configs;
}

// Micro-batches before the tokens repeat. A few would be learnt by heart in as many steps, and routing with them.
constexpr int64_t distinct_batches = 64;

void write_random_shard(const std::string& folder, const RunConfig& c) {
  std::mt19937 random(1);
  const int64_t batches = std::min(distinct_batches, c.train.steps * grad_accum(c));
  std::vector<uint16_t> tokens(static_cast<size_t>(c.train.device_batch * c.model.sequence_len * batches + 1));
  for (uint16_t& t : tokens) t = static_cast<uint16_t>(random() % static_cast<unsigned>(c.model.vocab_size));
  if (const Status s = write_shard(folder + "/bench_train_000001.bin", tokens); !s.ok())
    throw EngineError(FailureReason::data_error, s.error().message);
}

// How many configurations were measured.
int measure_all(const Options& o, const std::string& data) {
  const std::string gpu = o.backend == "cpu" ? "" : usable_gpu();
  const RunConfig base = config_of(o, o.backend == "cuda" || !gpu.empty(), data);
  Options chosen = o;
  if (chosen.recipes.empty()) chosen.recipes = {"tensorwise"};
  if (o.recipes.empty() && base.backend == Backend::cpu) chosen.recipes = {"tensorwise", "rowwise", "blockwise"};
  write_random_shard(data, base);
  int measured = 0;
  for (const RunConfig& c : configs_of(chosen, base))
    if (bench::measure(c, c.backend == Backend::cuda ? gpu : "cpu", o.steps, o.profile)) ++measured;
  return measured;
}

void add_options(CLI::App& app, Options& o) {
  app.add_option("--backend", o.backend, "auto, cpu, cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--precision", o.precisions, "fp32, bf16, fp8_noexperts, fp8_experts");
  app.add_option("--execution", o.executions, "eager, static, dynamic");
  app.add_option("--coalesce-tiling", o.coalesce_tiling,
                 "blocks of memory-bound kernels by width and timing, or fixed: on, off");
  app.add_option("--recipe", o.recipes, "tensorwise, rowwise, blockwise");
  app.add_option("--wgrad", o.wgrads, "weight gradients of what is FP8: auto, bf16, fp8");
  app.add_option("--grad-format", o.grad_formats, "FP8 gradients: e4m3, e5m2");
  app.add_flag("--lm-head-bf16", o.lm_head_bf16, "the output layer in BF16 also where the other layers are in FP8");
  app.add_flag("--value-embeddings", o.value_embeddings, "on alternate layers (always, on the CPU)");
  app.add_flag("--nondeterministic", o.nondeterministic, "attention's backward in any order of summation");
  app.add_option("--depth", o.depth, "layers");
  app.add_option("--d-model", o.d_model, "model width");
  app.add_option("--experts", o.experts, "routed experts");
  app.add_option("--top-k", o.top_k, "routed experts of a token");
  app.add_option("--vocab", o.vocab, "vocabulary");
  app.add_option("--sequence-len", o.sequence_len, "tokens of a sequence");
  app.add_option("--device-batch", o.device_batch, "sequences of a micro-batch");
  app.add_option("--accum", o.accum, "micro-batches of a step")->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "measured steps")->check(CLI::PositiveNumber);
  app.add_flag("--profile", o.profile, "time every op as well and print a table");
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures training steps.", "engine_bench");
  add_options(app, o);
  CLI11_PARSE(app, argc, argv);
  std::string folder = (std::filesystem::temp_directory_path() / "engine_bench_XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror("mkdtemp");
    return 1;
  }
  int code = 1;
  try {
    if (measure_all(o, folder) > 0) code = 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return code;
}
