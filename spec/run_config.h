// The complete configuration of one run: plain structs with the documented defaults. spec/run_config_toml.h reads and
// writes them; a spec file's [defaults], [matrix] and [[runs]] set any of these by their dotted path
// ("train.matrix_lr").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/words.h"

namespace assay {

#define ASSAY_PRECISIONS(X)                                                                   \
  X(fp32, "fp32", "no rounding below FP32 anywhere: the parity reference of the CPU backend") \
  X(bf16, "bf16", "")                                                                         \
  X(fp8_noexperts, "fp8_noexperts", "the dense linears in FP8")                               \
  X(fp8_experts, "fp8_experts", "the routed experts as well")
ASSAY_WORDS(Precision, "precision", ASSAY_PRECISIONS);

#define ASSAY_EXECUTIONS(X)                                                \
  X(eager, "eager", "operation by operation")                              \
  X(static_graph, "static", "one graph, each expert padded to a capacity") \
  X(dynamic_graph, "dynamic", "one graph, expert sizes read on the device")
ASSAY_WORDS(Execution, "execution", ASSAY_EXECUTIONS);

#define ASSAY_BACKENDS(X) X(automatic, "auto", "") X(cpu, "cpu", "") X(cuda, "cuda", "")
ASSAY_WORDS(Backend, "backend", ASSAY_BACKENDS);

#define ASSAY_FP8_RECIPES(X)              \
  X(tensorwise, "tensorwise", "a tensor") \
  X(rowwise, "rowwise", "a row")          \
  X(blockwise, "blockwise", "128 values of a row, 128 x 128 of a weight")
ASSAY_WORDS(Fp8Recipe, "FP8 recipe", ASSAY_FP8_RECIPES);

#define ASSAY_FP8_WGRADS(X) \
  X(automatic, "auto", "fp8 where the recipe is tensorwise") X(bf16, "bf16", "") X(fp8, "fp8", "")
ASSAY_WORDS(Fp8Wgrad, "precision of weight gradients", ASSAY_FP8_WGRADS);

#define ASSAY_FP8_FORMATS(X) X(e4m3, "e4m3", "") X(e5m2, "e5m2", "")
ASSAY_WORDS(Fp8Format, "FP8 format", ASSAY_FP8_FORMATS);

#define ASSAY_FAULT_KINDS(X)            \
  X(none, "none", "")                   \
  X(crash, "crash", "")                 \
  X(exit_code, "exit_code", "")         \
  X(stall, "stall", "")                 \
  X(plan_error, "plan_error", "")       \
  X(out_of_memory, "out_of_memory", "") \
  X(non_finite, "non_finite", "")
ASSAY_WORDS(FaultKind, "fault", ASSAY_FAULT_KINDS);

// Where the values come from that a spec does not set; docs/benchmarks.md has the measurements behind the difference.
#define ASSAY_PRESETS(X)                            \
  X(assay, "assay", "the defaults in these tables") \
  X(nanochat, "nanochat",                           \
    "nanochat's values where they differ: `model.residual_lambdas = true`, `train.scalar_lr = 0.5`")
ASSAY_WORDS(Preset, "preset", ASSAY_PRESETS);

struct ModelConfig {
  int depth = 12;   // L layers
  int d_model = 0;  // 0 = 64*depth rounded up to a multiple of head_dim
  int head_dim = 128;
  int experts = 8;  // E routed experts
  int top_k = 2;    // k routed experts per token; one shared expert is always on
  int vocab_size = 32768;
  int sequence_len = 2048;              // T
  std::string window_pattern = "SSSL";  // tiled over layers, last layer always L; S = ceil(T/4 to 128), L = T
  bool value_embeddings = true;         // on alternate layers, last layer always included
  bool residual_lambdas = false;        // learnable resid_lambda and x0_lambda per layer; off = 1 and 0
  double softcap = 15.0;
  double router_bias_rate = 0.01;  // gamma of the load-balancing bias; docs/benchmarks.md has others' loads
  double rope_base = 100000.0;
};

struct TrainConfig {
  int64_t steps = 140;
  int64_t total_batch_tokens = 524288;  // tokens per optimizer step over all ranks and micro-batches
  int device_batch = 32;                // sequences per micro-batch and device
  int64_t seed = 1;
  double matrix_lr = 0.02;    // Muon
  double embedding_lr = 0.3;  // AdamW; this and the next are scaled by sqrt(768/d_model)
  double unembedding_lr = 0.008;
  double scalar_lr = 0.05;     // AdamW: x0_lambdas; resid_lambdas take a hundredth of it
  double weight_decay = 0.28;  // Muon, cautious, cosine to zero
  int64_t warmup_steps = 40;
  double warmdown_ratio = 0.65;
  double final_lr_frac = 0.05;
  int64_t val_every = 0;  // 0 = never; needs validation shards
  int64_t val_tokens = 131072;
  int64_t checkpoint_every = 0;  // 0 = only when asked to
  bool deterministic = true;
  int64_t timeout_s = 0;  // wall clock of one attempt, 0 = none
};

struct Fp8Config {
  Fp8Recipe recipe = Fp8Recipe::tensorwise;
  Fp8Wgrad wgrad = Fp8Wgrad::automatic;
  Fp8Format grad_format = Fp8Format::e5m2;
  bool lm_head = true;
};

struct DataConfig {
  std::string path;  // folder of token shards in llm.c's layout; their names tell training from validation
};

// Fault hook for demonstrations and tests. Refused unless the daemon runs with --allow-fault-injection.
struct FaultConfig {
  FaultKind kind = FaultKind::none;
  int64_t step = 0;  // happens before this step's metrics are written
  int attempts = 1;  // only in attempts 1..attempts
};

struct RunConfig {
  Preset preset = Preset::assay;
  int devices = 1;
  Backend backend = Backend::automatic;
  Precision precision = Precision::bf16;
  Execution execution = Execution::dynamic_graph;
  bool coalesce_tiling = true;
  double capacity_factor = 1.25;  // static execution: initial rows per expert as a multiple of the fair share
  int recompile_limit = 8;        // static execution: re-captures before a plan_error
  ModelConfig model;
  TrainConfig train;
  Fp8Config fp8;
  DataConfig data;
  FaultConfig fault;
};

// The values of a run that sets nothing but its preset.
RunConfig preset_config(Preset);

// Derived sizes: docs/engine.md, "The model".
int model_width(const ModelConfig&);                  // d
int expert_width(const ModelConfig&);                 // h = max(128, round(4d/(k+1)/128)*128)
int attention_window(const ModelConfig&, int layer);  // tokens a query may look back on, itself included
bool has_value_embedding(const ModelConfig&, int layer);
int64_t grad_accum(const RunConfig&);  // micro-batches per step and device

struct ConfigProblem {
  std::string path;                  // "model.head_dim"
  std::string message;               // what is wrong and what was expected
  std::vector<std::string> related;  // the other paths of a rule over several fields
};
// Why a config that injects a fault is refused where faults are not `allowed`; nothing: it injects none, or they are.
std::optional<std::string> fault_problem(const RunConfig&, bool allowed);
// Everything wrong with a complete config, cross-field rules included. Empty = valid.
std::vector<ConfigProblem> validate(const RunConfig&);

}  // namespace assay
