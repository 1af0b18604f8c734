// Every mistake a person can make in a spec, with the whole message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "spec/experiment_spec.h"

namespace assay {
namespace {

using ::testing::ElementsAreArray;

std::vector<std::string> errors_of(std::string_view text) {
  const SpecResult result = parse_experiment(text, "s.toml", "/base");
  std::vector<std::string> messages;
  for (const SpecError& error : result.errors) messages.push_back(error.to_string());
  EXPECT_TRUE(result.ok() || (result.spec.runs.empty() && result.spec.experiment.empty()))
      << "nothing invalid is returned";
  return messages;
}

struct ErrorCase {
  std::string text;  // follows three good lines, so it begins on line 4
  std::vector<std::string> errors;
};

constexpr std::string_view good_lines = "experiment = \"e\"\ndefaults.data.path = \"d\"\n# line 3\n";

void expect_errors(const std::vector<ErrorCase>& cases) {
  for (const ErrorCase& test : cases)
    EXPECT_THAT(errors_of(std::string(good_lines) + test.text), ElementsAreArray(test.errors)) << test.text;
}

TEST(SpecErrors, OfSyntax) {
  expect_errors({
      {"repeats = ", {"s.toml:4:11: not TOML: key-value pair: encountered end-of-file"}},
      {"repeats 2\n", {"s.toml:4:9: not TOML: key-value pair: expected '=', saw '2'"}},
      {"repeats = 1\nrepeats = 2\n",
       {"s.toml:5:11: not TOML: key-value pair: cannot redefine existing integer 'repeats'"}},
      {"[matrix]\n[matrix]\n", {"s.toml:5:1: not TOML: table header: cannot redefine existing table 'matrix'"}},
      {"tag = \"x\n", {"s.toml:4:9: not TOML: the string has no closing quote on its line"}},
      {"tag = \"\xff\"\n", {"s.toml:4:7: not TOML: Encountered invalid utf-8 sequence"}},
  });
}

TEST(SpecErrors, OfTheHeader) {
  expect_errors({
      {"repeats = 0", {"s.toml:4:11: repeats = 0 is out of range; expected 1 to 100"}},
      {"repeats = 101", {"s.toml:4:11: repeats = 101 is out of range; expected 1 to 100"}},
      {"repeats = 2.0", {"s.toml:4:11: repeats is a float; expected an integer"}},
      {"priority = 1001", {"s.toml:4:12: priority = 1001 is out of range; expected -1000 to 1000"}},
      {"priority = true", {"s.toml:4:12: priority is a boolean; expected an integer"}},
      {"on_failure = \"contine\"",
       {"s.toml:4:14: on_failure = \"contine\" is not known; expected continue, stop_cell or stop_all; did you mean "
        "\"continue\"?"}},
      {"on_failure = 1", {"s.toml:4:14: on_failure is an integer; expected one of continue, stop_cell or stop_all"}},
      {"tag = 3", {"s.toml:4:7: tag is an integer; expected a string"}},
      {"tag = \"\"",
       {"s.toml:4:7: tag \"\" is empty; expected letters, digits, '.', '_' and '-', beginning with a letter, digit or "
        "'_'"}},
      {"tag = \"../x\"",
       {"s.toml:4:7: tag \"../x\" has a character that cannot be in a file name everywhere; expected letters, digits, "
        "'.', "
        "'_' and '-', beginning with a letter, digit or '_'"}},
      {"repeat = 3",
       {"s.toml:4:1: unknown key \"repeat\" at the top of a spec; expected experiment, tag, repeats, on_failure, "
        "priority, "
        "baseline, defaults, matrix, exclude, runs or retry; did you mean \"repeats\"?"}},
      {"precision = \"bf16\"",
       {"s.toml:4:1: unknown key \"precision\" at the top of a spec; what configures runs belongs in a table; did you "
        "mean "
        "\"defaults.precision\"?"}},
      {"train.steps = 3",
       {"s.toml:4:1: unknown key \"train\" at the top of a spec; what configures runs belongs in a table; did you mean "
        "\"defaults.train\"?"}},
      {"baseline = \"moe_bf16_dynamc\"",
       {"s.toml:4:12: baseline \"moe_bf16_dynamc\" is not a run of this spec; expected a run name such as "
        "\"moe_bf16_dynamic\"; did you mean \"moe_bf16_dynamic\"?"}},
  });
  EXPECT_THAT(
      errors_of("defaults.data.path = \"d\""),
      ElementsAreArray({"s.toml: experiment is missing; expected a name, such as experiment = \"my-ablation\""}));
  EXPECT_THAT(
      errors_of("experiment = \"my ablation\"\ndefaults.data.path = \"d\""),
      ElementsAreArray({"s.toml:1:14: experiment \"my ablation\" has a character that cannot be in a file name "
                        "everywhere; expected letters, digits, '.', '_' and '-', beginning with a letter, digit or "
                        "'_'"}));
  EXPECT_THAT(errors_of("experimant = \"e\"\ndefaults.data.path = \"d\"").size(), 1u) << "misspelt is not also missing";
}

TEST(SpecErrors, OfRetry) {
  expect_errors({
      {"retry = 3", {"s.toml:4:9: retry is an integer; expected a table [retry]"}},
      {"[retry]\nmax_attempts = 0\non = []",
       {"s.toml:5:16: retry.max_attempts = 0 is out of range; expected 1 to 100"}},
      {"[retry]\nmax_attempts = 2\non = [\"out_of_memry\"]",
       {"s.toml:6:7: retry.on: \"out_of_memry\" is not a failure reason; expected config_invalid, data_error, "
        "plan_error, "
        "out_of_memory, non_finite, device_error, communication_error, timeout, stalled, worker_lost, crashed or "
        "internal; "
        "did you mean \"out_of_memory\"?"}},
      {"[retry]\nmax_attempts = 2\non = [\"crashed\", \"crashed\"]",
       {"s.toml:6:18: retry.on names \"crashed\" twice; expected it once"}},
      {"[retry]\nmax_attempts = 2\non = \"crashed\"",
       {"s.toml:6:6: retry.on is a string; expected an array of failure reasons, such as [\"crashed\"]"}},
      {"[retry]\nmax_attempts = 2\non = [\"crashed\"]\nbackoff_s = -1",
       {"s.toml:7:13: retry.backoff_s = -1 is out of range; expected 0 to 604800"}},
      {"[retry]\nmax_attempts = 2\non = [\"crashed\"]\nbackof = 1",
       {"s.toml:7:1: unknown key \"backof\" in [retry]; expected max_attempts, on or backoff_s; did you mean "
        "\"backoff_s\"?"}},
      {"[retry]\nmax_attempts = 2\non = [\"crashed\"]\nbackoff = 1",
       {"s.toml:7:1: unknown key \"backoff\" in [retry]; expected max_attempts, on or backoff_s; did you mean "
        "\"backoff_s\"?"}},
      {"[retry]\nmax_attempts = 3",
       {"s.toml:4:1: retry.max_attempts = 3 without retry.on retries nothing; expected on = [...] with the failure "
        "reasons "
        "to retry"}},
      {"[retry]\non = [\"crashed\"]",
       {"s.toml:4:1: retry.on without retry.max_attempts retries nothing; expected max_attempts = 2 or more"}},
  });
}

TEST(SpecErrors, SayWhereAKeyBelongsThatStandsElsewhere) {
  const std::string above = "; it belongs above the first table of a spec";
  expect_errors({
      {"defaults.repeats = 3", {"s.toml:4:10: unknown key \"repeats\" in [defaults]" + above}},
      {"defaults.train.repeats = 3", {"s.toml:4:16: unknown key \"train.repeats\" in [defaults]" + above}},
      {"[[runs]]\npriority = 3", {"s.toml:5:1: unknown key \"priority\" in [[runs]]" + above}},
      {"[matrix]\ntag = [\"a\"]", {"s.toml:5:1: unknown key \"tag\" in [matrix]" + above}},
      {"[retry]\nmax_attempts = 2\non = [\"crashed\"]\nbaseline = \"x\"",
       {"s.toml:7:1: unknown key \"baseline\" in [retry]" + above}},
      {"defaults.repeat = 3",
       {"s.toml:4:10: unknown key \"repeat\" in [defaults]; did you mean \"repeats\", which belongs above the first "
        "table of a spec?"}},
      {"defaults.max_attempts = 3",
       {"s.toml:4:10: unknown key \"max_attempts\" in [defaults]; it belongs in [retry] of a spec"}},
      {"backoff_s = 3",
       {"s.toml:4:1: unknown key \"backoff_s\" at the top of a spec; it belongs in [retry] of a spec"}},
      {"defaults.retry.on = []",
       {"s.toml:4:10: unknown key \"retry\" in [defaults]; it belongs at the top of a spec, as [retry]"}},
      {"[[runs]]\nexclude.precision = \"bf16\"",
       {"s.toml:5:1: unknown key \"exclude\" in [[runs]]; it belongs at the top of a spec, as [[exclude]]"}},
      {"defaults.name = \"x\"", {"s.toml:4:10: unknown key \"name\" in [defaults]; it belongs in [[runs]] of a spec"}},
      {"[retry]\nmax_attempts = 2\non = [\"crashed\"]\ntrain.steps = 1",
       {"s.toml:7:1: unknown key \"train\" in [retry]; what configures runs belongs in a table of its own; did you "
        "mean "
        "\"defaults.train\"?"}},
      {"steps = 3",
       {"s.toml:4:1: unknown key \"steps\" at the top of a spec; what configures runs belongs in a table; did you mean "
        "\"defaults.train.steps\"?"}},
  });
}

TEST(SpecErrors, SuggestEveryValueThatAWordMayMean) {
  const std::string rates =
      "did you mean \"train.matrix_lr\", \"train.embedding_lr\", \"train.unembedding_lr\" or \"train.scalar_lr\"?";
  expect_errors({
      {"defaults.lr = 0.1", {"s.toml:4:10: unknown key \"lr\" in [defaults]; " + rates}},
      {"[[runs]]\ntrain.lr = 0.1", {"s.toml:5:7: unknown key \"train.lr\" in [[runs]]; " + rates}},
      {"[matrix]\ntrain.learning_rate = [0.1]",
       {"s.toml:5:7: unknown key \"train.learning_rate\" in [matrix]; " + rates}},
      {"defaults.train.warmup = 1",
       {"s.toml:4:16: unknown key \"train.warmup\" in [defaults]; did you mean \"train.warmup_steps\"?"}},
      {"defaults.train.step = 1",
       {"s.toml:4:16: unknown key \"train.step\" in [defaults]; did you mean \"train.steps\"?"}},
  });
}

TEST(SpecErrors, RangesAreShortHoweverLargeANumberIs) {
  for (const std::string value : {"1e308", "-1e308", "inf", "-1.7976931348623157e308", "nan", "9223372036854775807"}) {
    for (const std::string key : {"capacity_factor", "train.warmdown_ratio", "train.final_lr_frac", "model.depth",
                                  "train.steps", "train.weight_decay", "model.softcap"}) {
      for (const std::string& error : errors_of(std::string(good_lines) + "[[runs]]\n" + key + " = " + value))
        EXPECT_LT(error.size(), 160u) << error;
    }
  }
}

TEST(SpecErrors, OfTypesAndKeys) {
  expect_errors({
      {"[matrix]\nprecision = [\"bf16\", \"fp8_expert\"]",
       {"s.toml:5:22: precision = \"fp8_expert\" is not known; expected fp32, bf16, fp8_noexperts or fp8_experts; did "
        "you "
        "mean \"fp8_experts\"?"}},
      {"[matrix]\nexecution = [1]", {"s.toml:5:14: execution is an integer; expected one of eager, static or dynamic"}},
      {"[[runs]]\ncoalesce_tiling = 1", {"s.toml:5:19: coalesce_tiling is an integer; expected true or false"}},
      {"[[runs]]\ntrain.steps = 2.5", {"s.toml:5:15: train.steps is a float; expected an integer"}},
      {"[[runs]]\ntrain.matrix_lr = \"0.1\"", {"s.toml:5:19: train.matrix_lr is a string; expected a number"}},
      {"[[runs]]\ndata.path = 1979-05-27", {"s.toml:5:13: data.path is a date; expected a string"}},
      {"[[runs]]\ntrain.steps = {a = 1}", {"s.toml:5:15: train.steps is a table; expected an integer"}},
      {"[[runs]]\ntrain = 3", {"s.toml:5:9: train is an integer; expected a table"}},
      {"[[runs]]\nmodel.depth = 99999999999",
       {"s.toml:5:15: model.depth = 99999999999 is out of range; expected 1 to 256"}},
      {"[[runs]]\ntrain.matrx_lr = 0.1",
       {"s.toml:5:7: unknown key \"train.matrx_lr\" in [[runs]]; did you mean \"train.matrix_lr\"?"}},
      {"[[runs]]\nmatrix_lr = 0.1",
       {"s.toml:5:1: unknown key \"matrix_lr\" in [[runs]]; did you mean \"train.matrix_lr\"?"}},
      {"[[runs]]\nmodel.steps = 1",
       {"s.toml:5:7: unknown key \"model.steps\" in [[runs]]; did you mean \"train.steps\"?"}},
      {"[[runs]]\nnme = \"x\"", {"s.toml:5:1: unknown key \"nme\" in [[runs]]; did you mean \"name\"?"}},
      {"[[runs]]\ntrian = {steps = 1}", {"s.toml:5:1: unknown key \"trian\" in [[runs]]; did you mean \"train\"?"}},
      {"[[runs]]\nfp8.zzzzzzzz = 1",
       {"s.toml:5:5: unknown key \"fp8.zzzzzzzz\" in [[runs]]; expected recipe, wgrad, grad_format or lm_head"}},
      {"[[runs]]\n\"a\\u0001\\n\" = 1",
       {"s.toml:5:1: unknown key \"a\\x01\\x0a\" in [[runs]]; expected name, preset, devices, backend, precision, execution, "
        "coalesce_tiling, capacity_factor, recompile_limit, model, train, fp8, data or fault"}},
      {"[[runs]]\n\"train.steps\" = 1\ntrain.steps = 2",
       {"s.toml:6:7: train.steps is set twice in [[runs]]; expected it once, as on line 5"}},
      {"[[runs]]\nfault = {kind = \"crsh\"}",
       {"s.toml:5:17: fault.kind = \"crsh\" is not known; expected none, crash, exit_code, stall, plan_error, "
        "out_of_memory or non_finite; did you mean \"crash\"?"}},
  });
}

TEST(SpecErrors, OfTheMatrix) {
  expect_errors({
      {"matrix = 1", {"s.toml:4:10: matrix is an integer; expected a table [matrix]"}},
      {"[matrix]",
       {"s.toml:4:2: [matrix] has no axis; expected arrays of values, such as precision = [\"bf16\", "
        "\"fp8_experts\"]"}},
      {"[matrix]\ndevices = []", {"s.toml:5:11: axis devices is empty; expected at least one value"}},
      {"[matrix]\ndevices = 1",
       {"s.toml:5:11: axis devices is an integer; expected an array of values, such as devices = [...]"}},
      {"[matrix]\ntrain.matrix_lr = [1, 0.5, 1.0]",
       {"s.toml:5:28: axis train.matrix_lr has the value \"1\" twice; expected each value once"}},
      {"[[matrix]]\ndevices = [1]", {"s.toml:4:1: matrix is an array of tables; expected a table [matrix]"}},
      {"[matrix]\nmodel = {depth = [1], d_model = [1], head_dim = [1], experts = [1], top_k = [1], vocab_size = [1], "
       "sequence_len = [1], softcap = [1], rope_base = [1]}\ntrain = {steps = [1], seed = [1], val_every = [1], "
       "val_tokens = "
       "[1], matrix_lr = [1], scalar_lr = [1], timeout_s = [1], weight_decay = [1]}",
       {"s.toml:4:2: [matrix] has 17 axes; expected at most 16"}},
      {"[matrix]\nprecison = [\"bf16\"]",
       {"s.toml:5:1: unknown key \"precison\" in [matrix]; did you mean \"precision\"?"}},
      {"[matrix]\ndata.path = [\"a b\", \"a-b\"]",
       {"s.toml:4:2: run name \"moe_path-a-b\" is used twice, first on line 4; expected a name of its own"}},
  });
}

TEST(SpecErrors, OfExcludes) {
  const std::string matrix = "[matrix]\nprecision = [\"bf16\", \"fp8_experts\"]\n";
  expect_errors({
      {matrix + "[exclude]\nprecision = \"bf16\"", {"s.toml:6:1: exclude is a table; expected tables [[exclude]]"}},
      {matrix + "[[exclude]]\nprecision = \"fp32\"",
       {"s.toml:6:1: [[exclude]] matches no cell of [matrix]; expected values that at least one cell has"}},
      {matrix + "[[exclude]]", {"s.toml:6:1: [[exclude]] is empty; expected the values of the cells to leave out"}},
      {matrix + "[[exclude]]\nprecison = \"bf16\"",
       {"s.toml:7:1: unknown key \"precison\" in [[exclude]]; did you mean \"precision\"?"}},
      {matrix + "[[exclude]]\ndevices = 1",
       {"s.toml:4:2: every cell of [matrix] is excluded; expected at least one run"}},
      {"[[exclude]]\nprecision = \"bf16\"\n[[runs]]\n",
       {"s.toml:4:1: [[exclude]] matches no cell of [matrix]; expected values that at least one cell has"}},
  });
}

TEST(SpecErrors, OfRunNames) {
  const std::string rule = "expected letters, digits, '.', '_' and '-', beginning with a letter, digit or '_'";
  expect_errors({
      {"runs = 1", {"s.toml:4:8: runs is an integer; expected tables [[runs]]"}},
      {"[[runs]]\nname = 1",
       {"s.toml:5:8: name is an integer; expected a string", "s.toml:5:8: run name \"\" is empty; " + rule}},
      {"[[runs]]\nname = \"a\"\n[[runs]]\nname = \"a\"",
       {"s.toml:7:8: run name \"a\" is used twice, first on line 5; expected a name of its own"}},
      {"repeats = 2\n[[runs]]\nname = \"a\"\n[[runs]]\nname = \"a\"",
       {"s.toml:8:8: run name \"a\" is used twice, first on line 6; expected a name of its own"}},
      {"repeats = 2\n[[runs]]\nname = \"a\"\n[[runs]]\nname = \"a_repeat2\"",
       {"s.toml:8:8: run name \"a_repeat2\" is used twice, first on line 6; expected a name of its own"}},
      {"[matrix]\ndevices = [1, 2]\n[[runs]]\ndevices = 2",
       {"s.toml:6:1: run name \"moe_devices2\" is used twice, first on line 4; expected a name of its own"}},
      {"repeats = 3\n[[runs]]\nname = \".a\"", {"s.toml:6:8: run name \".a\" starts with '.'; " + rule}},
      {"[[runs]]\nname = \"-a\"", {"s.toml:5:8: run name \"-a\" starts with '-'; " + rule}},
      {"[[runs]]\nname = \"a/b\"",
       {"s.toml:5:8: run name \"a/b\" has a character that cannot be in a file name everywhere; " + rule}},
      {"[[runs]]\nname = \"" + std::string(129, 'x') + "\"",
       {"s.toml:5:8: run name \"" + std::string(64, 'x') + "...\" is 129 characters long; expected at most 128"}},
      {"repeats = 2\n[[runs]]\nname = \"" + std::string(128, 'x') + "\"",
       {"s.toml:6:8: run name \"" + std::string(64, 'x') + "...\" is 136 characters long; expected at most 128"}},
  });
}

// A mistake over several fields is pinned to the line that set the offending value and names the run.
TEST(SpecErrors, OfConfigs) {
  expect_errors({
      {"[defaults.train]\nsteps = 0\n[matrix]\ndevices = [1, 2, 4]",
       {"s.toml:5:1: train.steps = 0 is out of range; expected 1 to 1000000 (run moe_devices1 and 2 more)"}},
      {"[matrix]\ntrain.steps = [1, 0]",
       {"s.toml:5:19: train.steps = 0 is out of range; expected 1 to 1000000 (run moe_steps0)"}},
      {"[[runs]]\nname = \"wide\"\nmodel.top_k = 9",
       {"s.toml:6:7: model.top_k = 9 is more than model.experts = 8; expected 1 to 8 (run wide)"}},
      {"[defaults.model]\ntop_k = 4\n[matrix]\nmodel.experts = [2, 8]",
       {"s.toml:7:18: model.top_k = 4 is more than model.experts = 2; expected 1 to 2 (run moe_experts2)"}},
      {"defaults.train.device_batch = 48",
       {"s.toml:4:16: train.total_batch_tokens = 524288 is not divisible by devices * train.device_batch * "
        "model.sequence_len = 1 * 48 * 2048 = 98304; expected a multiple of 98304 (run moe_bf16_dynamic)"}},
      {"[defaults.fp8]\nrecipe = \"rowwise\"\n[[runs]]\nname = \"w\"\nfp8.wgrad = \"fp8\"",
       {"s.toml:8:5: fp8.wgrad = fp8 does not go with fp8.recipe = rowwise: weight gradients sum over tokens, so "
        "rowwise "
        "scales would need a second quantisation along tokens; expected fp8.recipe = \"tensorwise\" or fp8.wgrad = "
        "\"bf16\" "
        "(run w)"}},
      {"repeats = 3\ndefaults.train.seed = 9223372036854775807",
       {"s.toml:5:16: train.seed = 9223372036854775807 is out of range; expected 0 to 9007199254740992 (run "
        "moe_bf16_dynamic)"}},
      {"repeats = 2\ndefaults.train.seed = 9007199254740992",
       {"s.toml:5:16: train.seed = 9007199254740992 leaves no room for 2 repeats; expected at most 9007199254740991 "
        "(run "
        "moe_bf16_dynamic)"}},
  });
  EXPECT_THAT(errors_of("experiment = \"e\""),
              ElementsAreArray({"s.toml: data.path is empty; expected the folder of the token shards (run "
                                "moe_bf16_dynamic)"}));
}

// toml++ 3.3.0 takes U+FE66 to U+FEFE for unreachable (cmake/static/toml.cpp).
TEST(SpecErrors, AnyCharacterMayStandWhereAKeyIsExpected) {
  EXPECT_THAT(errors_of("\xEF\xB9\xB6key = 1"),
              ElementsAreArray({"s.toml:1:1: not TOML: root table: expected keys, tables, whitespace or comments, saw "
                                "'\xEF\xB9\xB6'"}));
}

TEST(SpecErrors, AMisspeltKeyDoesNotCauseOthers) {
  EXPECT_THAT(errors_of("experiment = \"e\"\n[defaults]\ndata = {pth = \"d\"}"),
              ElementsAreArray({"s.toml:3:9: unknown key \"data.pth\" in [defaults]; did you mean \"data.path\"?"}));
  EXPECT_THAT(errors_of("experiment = \"e\"\n[defaults]\ndata = \"d\""),
              ElementsAreArray({"s.toml:3:8: data is a string; expected a table"}));
}

TEST(SpecErrors, ManyAreReportedAtOnceInFileOrder) {
  EXPECT_THAT(errors_of("experiment = \"e\"\n[[runs]]\ntrain.steps = 0\nmodel.dpth = 1\n[defaults]\ndata.path = 3\n"),
              ElementsAreArray({"s.toml:3:7: train.steps = 0 is out of range; expected 1 to 1000000 (run moe_steps0)",
                                "s.toml:4:7: unknown key \"model.dpth\" in [[runs]]; did you mean \"model.depth\"?",
                                "s.toml:6:13: data.path is an integer; expected a string"}));
}

TEST(SpecErrors, ALongListIsCut) {
  std::string text(good_lines);
  for (int i = 0; i < 30; ++i) text += "zz" + std::to_string(i) + " = 1\n";
  const auto errors = errors_of(text);
  ASSERT_EQ(errors.size(), limits::spec_errors_shown + 1);
  EXPECT_THAT(errors[19], ::testing::StartsWith("s.toml:23:1: unknown key \"zz19\""));
  EXPECT_EQ(errors[20], "s.toml: 10 more errors not shown");
}

TEST(SpecErrors, OfSize) {
  EXPECT_THAT(errors_of(std::string(limits::spec_bytes + 1, '\n')),
              ElementsAreArray({"s.toml: the file has 1048577 bytes; expected at most 1048576"}));
  std::string seeds;
  for (int i = 0; i < 101; ++i) seeds += std::to_string(i) + ",";
  expect_errors({
      {"[matrix]\ntrain.seed = [" + seeds + "]\ntrain.warmup_steps = [" + seeds + "]",
       {"s.toml:4:2: [matrix] has more than 10000 cells; expected at most that many"}},
      {"repeats = 100\n[matrix]\ntrain.seed = [" + seeds + "]",
       {"s.toml: 101 cells times repeats = 100 is 10100 runs; expected at most 10000"}},
  });
  std::string excludes = "[matrix]\ndevices = [1, 2]\n";
  for (int i = 0; i < 1001; ++i) excludes += "[[exclude]]\ndevices = 2\n";
  expect_errors({{excludes, {"s.toml:2006:1: the spec has 1001 excludes; expected at most 1000"}}});
}

TEST(SpecErrors, OfKeysTooDeepForTheParser) {
  const auto deep = [](int parts) {
    std::string key = "a";
    for (int i = 1; i < parts; ++i) key += ".a";
    return key;
  };
  const std::string error = "the key has more than 32 parts; expected at most 3, as in matrix.train.steps";
  expect_errors({
      {deep(500'000) + " = 1", {"s.toml:4:64: " + error}},
      {"[" + deep(500'000) + "]", {"s.toml:4:65: " + error}},
      {"x = {\"{\" . " + deep(40) + " = 1}", {"s.toml:4:73: " + error}},
      {"x = \"\"\"\n\"\"\"\"\"\ny = '''a''''\n\"é\"." + deep(40), {"s.toml:7:66: " + error}},
  });
  // Dots in strings, comments and numbers are not keys.
  const auto errors =
      errors_of(std::string(good_lines) + "# " + deep(40) + "\n[defaults.fp8]\nrecipe = '" + deep(40) + "'");
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_THAT(errors[0], ::testing::StartsWith("s.toml:6:10: fp8.recipe = \"a.a.a"));
}

}  // namespace
}  // namespace assay
