#include "spec/experiment_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "spec/run_config_toml.h"
#include "tests/support/paths.h"

namespace assay {
namespace {

using ::testing::ElementsAre;

ExperimentSpec parse(std::string_view text, std::string_view base_folder = "/base") {
  SpecResult result = parse_experiment(text, "s.toml", base_folder);
  for (const SpecError& error : result.errors) ADD_FAILURE() << error.to_string();
  return std::move(result.spec);
}

ExperimentSpec parse_with_data(std::string_view text) {
  return parse("experiment = \"e\"\ndefaults.data.path = \"d\"\n" + std::string(text));
}

std::vector<std::string> names(const ExperimentSpec& spec) {
  std::vector<std::string> all;
  for (const PlannedRun& run : spec.runs) all.push_back(run.name);
  return all;
}

std::vector<std::string> names_of(std::string_view text) {
  return names(parse_with_data(text));
}

// The spec of the product's documentation.
constexpr std::string_view documented = R"(
experiment = "moe-fp8-compile-ablation"
repeats    = 2
on_failure = "continue"
priority   = 0

[defaults]
devices = 1
model = {depth = 12, experts = 8, top_k = 2, vocab_size = 32768, sequence_len = 2048}
train = {steps = 140, total_batch_tokens = 524288, device_batch = 32, seed = 1}
data  = {path = "data/corpus"}

[matrix]
precision = ["bf16", "fp8_noexperts", "fp8_experts"]
execution = ["eager", "static", "dynamic"]

[[exclude]]
precision = "bf16"
execution = "eager"

[[runs]]
name = "moe_fp8_experts_dynamic_long"
precision = "fp8_experts"
execution = "dynamic"
train.steps = 360

[retry]
max_attempts = 2
on = ["out_of_memory", "crashed"]
backoff_s = 30
)";

TEST(ExperimentSpec, ExpandsTheDocumentedExample) {
  const ExperimentSpec spec = parse(documented);
  EXPECT_EQ(spec.experiment, "moe-fp8-compile-ablation");
  EXPECT_EQ(spec.tag, "");
  EXPECT_EQ(spec.priority, 0);
  EXPECT_EQ(spec.on_failure, OnFailure::continue_);
  EXPECT_EQ(spec.retry.max_attempts, 2);
  EXPECT_THAT(spec.retry.on, ElementsAre(FailureReason::out_of_memory, FailureReason::crashed));
  EXPECT_EQ(spec.retry.backoff_s, 30);
  EXPECT_EQ(spec.text, documented);
  EXPECT_THAT(names(spec),
              ElementsAre("moe_bf16_static", "moe_bf16_dynamic", "moe_fp8_noexperts_eager", "moe_fp8_noexperts_static",
                          "moe_fp8_noexperts_dynamic", "moe_fp8_experts_eager", "moe_fp8_experts_static",
                          "moe_fp8_experts_dynamic", "moe_fp8_experts_dynamic_long", "moe_bf16_static_repeat2",
                          "moe_bf16_dynamic_repeat2", "moe_fp8_noexperts_eager_repeat2",
                          "moe_fp8_noexperts_static_repeat2", "moe_fp8_noexperts_dynamic_repeat2",
                          "moe_fp8_experts_eager_repeat2", "moe_fp8_experts_static_repeat2",
                          "moe_fp8_experts_dynamic_repeat2", "moe_fp8_experts_dynamic_long_repeat2"));
  const PlannedRun& last = spec.runs.back();
  EXPECT_EQ(last.repeat, 2);
  EXPECT_EQ(last.config.train.seed, 2);
  EXPECT_EQ(last.config.train.steps, 360);
  EXPECT_EQ(last.config.precision, Precision::fp8_experts);
  EXPECT_EQ(last.config.model.depth, 12);
  EXPECT_EQ(last.config.data.path, "/base/data/corpus");
  EXPECT_EQ(last.cell_key, spec.runs[8].cell_key);
  EXPECT_NE(last.cell_key, spec.runs[7].cell_key);
}

TEST(ExperimentSpec, EveryPlannedConfigIsValidAndReadsBack) {
  for (const PlannedRun& run : parse(documented).runs) {
    const RunConfigResult read = parse_run_config(to_toml(run.config), "run.toml");
    EXPECT_TRUE(read.errors.empty());
    EXPECT_EQ(to_toml(read.config), to_toml(run.config));
  }
}

TEST(ExperimentSpec, TheExampleOfTheRepositoryIsValid) {
  const std::string path = source_dir() + "/examples/ablation_cpu.toml";
  EXPECT_GT(parse(read_file(path).value()).runs.size(), 9u);
}

TEST(ExperimentSpec, DefaultsAloneAreOneRun) {
  EXPECT_THAT(names_of(""), ElementsAre("moe_bf16_dynamic"));
  EXPECT_THAT(names_of("defaults.precision = \"fp8_experts\""), ElementsAre("moe_fp8_experts_dynamic"));
}

TEST(ExperimentSpec, ExplicitRunsAloneAreOnlyThose) {
  EXPECT_THAT(names_of("[[runs]]\nname = \"a\"\n[[runs]]\nname = \"b\""), ElementsAre("a", "b"));
}

TEST(ExperimentSpec, HeaderValuesAreKept) {
  const ExperimentSpec spec =
      parse_with_data("tag = \"v4\"\npriority = -3\non_failure = \"stop_cell\"\nbaseline = \"moe_bf16_dynamic\"\n");
  EXPECT_EQ(spec.tag, "v4");
  EXPECT_EQ(spec.priority, -3);
  EXPECT_EQ(spec.on_failure, OnFailure::stop_cell);
  EXPECT_EQ(spec.baseline, "moe_bf16_dynamic");
  EXPECT_EQ(parse_with_data("on_failure = \"stop_all\"").on_failure, OnFailure::stop_all);
}

TEST(RunNames, AreMadeOfTheVaryingAxesInFileOrder) {
  EXPECT_THAT(names_of("[matrix]\nexecution = [\"static\"]\nprecision = [\"bf16\"]"), ElementsAre("moe_bf16_static"))
      << "nothing varies";
  EXPECT_THAT(names_of("[matrix]\nexecution = [\"static\", \"eager\"]\nprecision = [\"bf16\", \"fp32\"]"),
              ElementsAre("moe_static_bf16", "moe_static_fp32", "moe_eager_bf16", "moe_eager_fp32"));
  EXPECT_THAT(names_of("[matrix]\nprecision = [\"bf16\"]\ncoalesce_tiling = [true, false]"),
              ElementsAre("moe_coalesce_tiling1", "moe_coalesce_tiling0"));
  EXPECT_THAT(names_of("[matrix]\ntrain.matrix_lr = [0.02, 1e-5, 1]\n"),
              ElementsAre("moe_matrix_lr0.02", "moe_matrix_lr1e-05", "moe_matrix_lr1"));
  EXPECT_THAT(names_of("[matrix]\nmodel.rope_base = [1e20, 5]\n"), ElementsAre("moe_rope_base1e20", "moe_rope_base5"));
  EXPECT_THAT(names_of("[matrix]\nfp8.recipe = [\"rowwise\", \"blockwise\"]\n"),
              ElementsAre("moe_recipe-rowwise", "moe_recipe-blockwise"));
  EXPECT_THAT(names_of("[matrix]\ndata.path = [\"/x/fine web\", \"b.2\"]\n"),
              ElementsAre("moe_path--x-fine-web", "moe_path-b.2"));
}

TEST(RunNames, ExplicitRunsWithoutANameAddWhatTheySet) {
  EXPECT_THAT(names_of("[matrix]\nprecision = [\"bf16\", \"fp8_experts\"]\n"
                       "[[runs]]\nprecision = \"bf16\"\ntrain.steps = 360\ncoalesce_tiling = false\n"),
              ElementsAre("moe_bf16", "moe_fp8_experts", "moe_bf16_steps360_coalesce_tiling0"));
}

TEST(Presets, MayBeAnAxisAndAnyLayerOverridesTheirValues) {
  const ExperimentSpec spec = parse_with_data("[matrix]\npreset = ['assay', 'nanochat']\n");
  ASSERT_EQ(spec.runs.size(), 2u);
  EXPECT_EQ(spec.runs[0].name, "moe_preset-assay");
  EXPECT_FALSE(spec.runs[0].config.model.residual_lambdas);
  EXPECT_EQ(spec.runs[1].name, "moe_preset-nanochat");
  EXPECT_TRUE(spec.runs[1].config.model.residual_lambdas);
  EXPECT_EQ(spec.runs[1].config.train.scalar_lr, 0.5);

  const ExperimentSpec runs = parse_with_data(
      "defaults.train.scalar_lr = 0.1\n[[runs]]\nname = 'a'\npreset = 'nanochat'\n[[runs]]\nname = 'b'\n");
  ASSERT_EQ(runs.runs.size(), 2u);
  EXPECT_TRUE(runs.runs[0].config.model.residual_lambdas);
  EXPECT_EQ(runs.runs[0].config.train.scalar_lr, 0.1) << "written in [defaults], which beats the preset of a run";
  EXPECT_FALSE(runs.runs[1].config.model.residual_lambdas);
}

// Eight long axes: the names keep their beginning and end in a hash of the whole.
TEST(RunNames, ThatWouldBeTooLongAreShortened) {
  const std::string axes = R"(
[matrix]
precision = ["fp8_noexperts", "fp8_experts"]
execution = ["static", "dynamic"]
coalesce_tiling = [true, false]
model.residual_lambdas = [true, false]
train.total_batch_tokens = [65536, 131072]
train.unembedding_lr = [0.00812345, 0.00412345]
train.checkpoint_every = [100000, 200000]
model.value_embeddings = [true, false]
model.router_bias_rate = [0.00123456, 0.00234567]
)";
  const ExperimentSpec spec = parse_with_data("repeats = 2\ndefaults.train.device_batch = 32\n" + axes);
  ASSERT_EQ(spec.runs.size(), 1024u);
  std::set<std::string> all;
  for (const PlannedRun& run : spec.runs) {
    EXPECT_LE(run.name.size(), 128u);
    EXPECT_TRUE(run.name.starts_with("moe_fp8_")) << run.name;
    all.insert(run.name);
  }
  EXPECT_EQ(all.size(), 1024u) << "every name is its own";
  EXPECT_EQ(
      spec.runs[0].name,
      "moe_fp8_noexperts_static_coalesce_tiling1_residual_lambdas1_total_batch_tokens65536_unembedding_lr0.00812_" +
          sha256_hex("moe_fp8_noexperts_static_coalesce_tiling1_residual_lambdas1_total_batch_tokens65536_"
                     "unembedding_lr0.00812345_checkpoint_every100000_value_embeddings1_router_bias_rate0.00123456")
              .substr(0, 12));
  EXPECT_EQ(spec.runs[512].name, spec.runs[0].name + "_repeat2");
  EXPECT_EQ(names(parse_with_data("repeats = 1\ndefaults.train.device_batch = 32\n" + axes))[0], spec.runs[0].name)
      << "whatever the repeats";
  EXPECT_EQ(spec.runs[0].config.model.router_bias_rate, 0.00123456) << "the axes are in the config";
}

TEST(RunNames, AnExplicitRunMayEqualAMatrixCell) {
  const ExperimentSpec spec = parse_with_data(
      "[matrix]\nexecution = [\"static\", \"dynamic\"]\n[[runs]]\nname = \"static_again\"\nexecution = \"static\"\n");
  ASSERT_EQ(spec.runs.size(), 3u);
  EXPECT_EQ(to_toml(spec.runs[0].config), to_toml(spec.runs[2].config));
  EXPECT_NE(spec.runs[0].cell_key, spec.runs[2].cell_key);
}

TEST(Matrix, AnyPathMayBeAnAxisHoweverItIsWritten) {
  const std::vector<std::string> expected = {"moe_bf16_steps1", "moe_bf16_steps2", "moe_fp8_experts_steps1",
                                             "moe_fp8_experts_steps2"};
  for (const std::string_view matrix :
       {"[matrix]\nprecision = [\"bf16\", \"fp8_experts\"]\ntrain.steps = [1, 2]",
        "[matrix]\nprecision = [\"bf16\", \"fp8_experts\"]\n\"train.steps\" = [1, 2]",
        "[matrix]\nprecision = [\"bf16\", \"fp8_experts\"]\ntrain = {steps = [1, 2]}",
        "[matrix]\nprecision = [\"bf16\", \"fp8_experts\"]\n[matrix.train]\nsteps = [1, 2]"})
    EXPECT_EQ(names_of(matrix), expected) << matrix;
}

TEST(Matrix, TheOrderOfAxesIsThatOfTheFileAcrossTables) {
  EXPECT_THAT(
      names_of("[matrix]\ntrain.steps = [1, 2]\ndevices = [1, 2]\ntrain.seed = [5]\ntrain.warmup_steps = [0, 1]\n"),
      ElementsAre("moe_steps1_devices1_warmup_steps0", "moe_steps1_devices1_warmup_steps1",
                  "moe_steps1_devices2_warmup_steps0", "moe_steps1_devices2_warmup_steps1",
                  "moe_steps2_devices1_warmup_steps0", "moe_steps2_devices1_warmup_steps1",
                  "moe_steps2_devices2_warmup_steps0", "moe_steps2_devices2_warmup_steps1"));
}

TEST(Matrix, LayersOverrideEachOther) {
  const ExperimentSpec spec = parse_with_data(
      "defaults.train.steps = 5\ndefaults.train.warmup_steps = 3\n"
      "[matrix]\ntrain.steps = [6, 7]\n[[runs]]\nname = \"x\"\ntrain.warmup_steps = 4\n");
  ASSERT_EQ(spec.runs.size(), 3u);
  EXPECT_EQ(spec.runs[0].config.train.steps, 6);
  EXPECT_EQ(spec.runs[0].config.train.warmup_steps, 3);
  EXPECT_EQ(spec.runs[2].config.train.steps, 5) << "a run starts from the defaults";
  EXPECT_EQ(spec.runs[2].config.train.warmup_steps, 4);
}

TEST(Matrix, ExcludesRemoveCellsThatMatchAllTheirValues) {
  const std::string matrix = "[matrix]\ndevices = [1, 2]\ntrain.matrix_lr = [1, 0.5]\n";
  EXPECT_THAT(names_of(matrix + "[[exclude]]\ndevices = 2\ntrain.matrix_lr = 1\n"),
              ElementsAre("moe_devices1_matrix_lr1", "moe_devices1_matrix_lr0.5", "moe_devices2_matrix_lr0.5"));
  EXPECT_THAT(names_of(matrix + "[[exclude]]\ndevices = 2\n[[exclude]]\ntrain.matrix_lr = 0.5\n"),
              ElementsAre("moe_devices1_matrix_lr1"));
  EXPECT_THAT(names_of(matrix + "[[exclude]]\ndevices = 2\n[[runs]]\nname = \"kept\"\ndevices = 2\n"),
              ElementsAre("moe_devices1_matrix_lr1", "moe_devices1_matrix_lr0.5", "kept"))
      << "explicit runs are not excluded";
}

TEST(Repeats, AddToTheSeedAndKeepTheCell) {
  const ExperimentSpec spec = parse_with_data("repeats = 3\ndefaults.train.seed = 40\n[matrix]\ndevices = [1, 2]\n");
  EXPECT_THAT(names(spec), ElementsAre("moe_devices1", "moe_devices2", "moe_devices1_repeat2", "moe_devices2_repeat2",
                                       "moe_devices1_repeat3", "moe_devices2_repeat3"));
  std::set<std::pair<std::string, int>> keys;
  for (const PlannedRun& run : spec.runs) {
    EXPECT_EQ(run.config.train.seed, 39 + run.repeat);
    keys.emplace(run.cell_key, run.repeat);
  }
  EXPECT_EQ(keys.size(), 6u);
  EXPECT_EQ(spec.runs[0].cell_key, spec.runs[4].cell_key);
  EXPECT_THAT(spec.runs[0].cell_key, ::testing::MatchesRegex("[0-9a-f]{16}"));
}

TEST(CellKeys, DependOnTheConfigButNotOnSeedRepeatsOrOtherCells) {
  const auto key = [](std::string_view text) { return parse_with_data(text).runs.at(0).cell_key; };
  const std::string plain = key("[[runs]]\nname = \"a\"\n");
  EXPECT_EQ(key("repeats = 2\n[[runs]]\nname = \"a\"\ntrain.seed = 9\n[[runs]]\nname = \"b\"\n"), plain);
  EXPECT_NE(key("[[runs]]\nname = \"a\"\ntrain.steps = 9\n"), plain);
  EXPECT_NE(key("[[runs]]\nname = \"b\"\n"), plain);
}

TEST(DataPath, IsMadeAbsolute) {
  const auto path = [](std::string_view written, std::string_view base) {
    return parse("experiment = \"e\"\ndefaults.data.path = \"" + std::string(written) + "\"", base)
        .runs.at(0)
        .config.data.path;
  };
  EXPECT_EQ(path("data/corpus", "/home/me"), "/home/me/data/corpus");
  EXPECT_EQ(path("./a/../b/", "/home/me"), "/home/me/b");
  EXPECT_EQ(path("/abs/x", "/home/me"), "/abs/x");
  EXPECT_EQ(path("/", "/home/me"), "/");
}

std::string hash_of(std::string_view text) {
  return parse(text).hash;
}

TEST(Hash, IsIndependentOfLayoutCommentsAndKeyOrder) {
  const std::string one = hash_of(
      "experiment = \"e\"\nrepeats = 2\n[defaults]\ntrain = {steps = 3, seed = 2}\ndata = {path = \"d\"}\n"
      "[matrix]\nprecision = [\"bf16\", \"fp32\"]\n[retry]\nmax_attempts = 2\non = [\"crashed\", \"stalled\"]\n");
  EXPECT_EQ(one.size(), 64u);
  EXPECT_EQ(
      hash_of(
          "# a comment\r\nrepeats=2\r\nexperiment='e'\r\nretry = {on = ['stalled', 'crashed'], max_attempts = 2}\r\n"
          "matrix.precision = [\r\n 'bf16', # this\r\n 'fp32',\r\n]\r\n"
          "[defaults]\r\ndata.path = \"./d\"\r\n\"train.seed\" = 0x2\r\ntrain.steps = 3\r\nexecution = 'dynamic'\r\n"),
      one);
}

TEST(Hash, ChangesWithAnythingThatMatters) {
  const std::string base = "experiment = \"e\"\ndefaults.data.path = \"d\"\n";
  std::set<std::string> hashes = {hash_of(base)};
  const std::vector<std::string> others = {
      base + "repeats = 2",
      base + "priority = 1",
      base + "on_failure = \"stop_all\"",
      base + "baseline = \"moe_bf16_dynamic\"",
      base + "retry = {max_attempts = 2, on = [\"crashed\"]}",
      base + "retry = {max_attempts = 2, on = [\"crashed\", \"timeout\"]}",
      base + "retry = {max_attempts = 2, on = [\"crashed\"], backoff_s = 1}",
      base + "defaults.train.seed = 2",
      base + "defaults.coalesce_tiling = false",
      base + "[[runs]]\nname = \"a\"",
      "experiment = \"f\"\ndefaults.data.path = \"d\"",
      "experiment = \"e\"\ndefaults.data.path = \"e\"",
  };
  for (const std::string& text : others) hashes.insert(hash_of(text));
  EXPECT_EQ(hashes.size(), others.size() + 1);
  EXPECT_EQ(hash_of(base + "tag = \"t\""), hash_of(base)) << "the tag names one submission, not what is run";
}

TEST(ExperimentSpec, TheSameTextGivesTheSameResult) {
  const ExperimentSpec one = parse(documented), two = parse(documented);
  EXPECT_EQ(names(one), names(two));
  EXPECT_EQ(one.hash, two.hash);
}

TEST(ExperimentSpec, TheLargestExperimentFits) {
  std::string seeds;
  for (int i = 0; i < 100; ++i) seeds += std::to_string(i) + ",";
  const ExperimentSpec spec = parse_with_data("repeats = 100\n[matrix]\ntrain.seed = [" + seeds + "]");
  EXPECT_EQ(spec.runs.size(), 10'000u);
  std::set<std::string> unique;
  for (const PlannedRun& run : spec.runs) unique.insert(run.name);
  EXPECT_EQ(unique.size(), spec.runs.size());
}

}  // namespace
}  // namespace assay
