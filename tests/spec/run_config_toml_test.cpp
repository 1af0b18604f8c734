#include "spec/run_config_toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "base/file.h"
#include "spec/config_fields.h"
#include "tests/support/paths.h"

namespace assay {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> errors_of(std::string_view text) {
  std::vector<std::string> messages;
  for (const SpecError& error : parse_run_config(text, "run.toml").errors) messages.push_back(error.to_string());
  return messages;
}

// Any value that TOML can hold, legal for training or not.
ConfigValue random_value(const ConfigField& field, std::mt19937_64& random) {
  static const std::vector<std::string> pieces = {"a",    "/", "\"", "\\", "\n", "\t", "\x01",
                                                  "\x7f", "é", "コ", "#",  "'",  " "};
  switch (field.kind) {
    case ValueKind::boolean:
      return random() % 2 == 0;
    case ValueKind::integer:
      return field.largest == INT64_MAX ? static_cast<int64_t>(random()) : int64_t{static_cast<int32_t>(random())};
    case ValueKind::real: {
      const double any = std::bit_cast<double>(random());
      return std::isnan(any) ? -0.0 : any;
    }
    case ValueKind::choice:
      return std::string(field.choices[random() % field.choices.size()]);
    case ValueKind::text:
      break;
  }
  std::string text;
  for (uint64_t n = random() % 20; n > 0; --n) text += pieces[random() % pieces.size()];
  return text;
}

TEST(RunConfigToml, AnyConfigReadsBackTheSame) {
  std::mt19937_64 random(20260224);
  for (int round = 0; round < 500; ++round) {
    RunConfig config;
    for (const ConfigField& field : config_fields()) field.set(config, random_value(field, random));
    const std::string text = to_toml(config);
    const RunConfig read = parse_run_config(text, "run.toml").config;
    for (const ConfigField& field : config_fields())
      ASSERT_EQ(field.get(read), field.get(config)) << field.path << " in\n" << text;
    ASSERT_EQ(to_toml(read), text);
  }
}

TEST(RunConfigToml, EqualConfigsGiveEqualTextAndEveryFieldShows) {
  const std::string text = to_toml(RunConfig{});
  EXPECT_EQ(to_toml(RunConfig{}), text);
  std::mt19937_64 random(7);
  for (const ConfigField& field : config_fields()) {
    RunConfig changed;
    do field.set(changed, random_value(field, random));
    while (field.get(changed) == field.get(RunConfig{}));
    EXPECT_NE(to_toml(changed), text) << field.path;
  }
}

// Queued cells and checkpoints of earlier versions are found again by it: the file was written before there were
// presets.
TEST(RunConfigToml, WhatTellsConfigsApartStaysAsItWas) {
  const std::string written = read_file(source_dir() + "/tests/fixtures/home_1/checkpoint/run.toml").value();
  RunConfig config = parse_run_config(written, "run.toml").config;
  EXPECT_EQ(canonical_text(config), written);
  config.preset = Preset::nanochat;
  EXPECT_EQ(canonical_text(config), written) << "where values come from, and no value";
  EXPECT_NE(to_toml(config), written);
}

TEST(RunConfigToml, IsReadableToml) {
  RunConfig config;
  config.data.path = "/data/\"x\"";
  config.train.matrix_lr = 1;
  const std::string text = to_toml(config);
  EXPECT_THAT(
      text,
      ::testing::StartsWith(
          "preset = \"assay\"\ndevices = 1\nbackend = \"auto\"\nprecision = \"bf16\"\nexecution = \"dynamic\"\n"));
  EXPECT_THAT(text, ::testing::HasSubstr("\n[train]\nsteps = 140\n"));
  EXPECT_THAT(text, ::testing::HasSubstr("\nmatrix_lr = 1.0\n"));
  EXPECT_THAT(text, ::testing::HasSubstr("\n[data]\npath = \"/data/\\\"x\\\"\"\n"));
}

TEST(RunConfigToml, WhatIsLeftOutHasItsDefault) {
  const auto read = parse_run_config("data.path = '/d'\n[train]\nsteps = 3\nmatrix_lr = 1\n", "run.toml");
  EXPECT_THAT(read.errors, IsEmpty());
  RunConfig expected;
  expected.data.path = "/d";
  expected.train.steps = 3;
  expected.train.matrix_lr = 1.0;
  EXPECT_EQ(to_toml(read.config), to_toml(expected));
}

TEST(RunConfigToml, APresetGivesWhatIsNotWritten) {
  const auto nanochat = parse_run_config("data.path = '/d'\npreset = 'nanochat'\n", "run.toml");
  EXPECT_THAT(nanochat.errors, IsEmpty());
  EXPECT_TRUE(nanochat.config.model.residual_lambdas);
  EXPECT_EQ(nanochat.config.train.scalar_lr, 0.5);
  EXPECT_EQ(nanochat.config.preset, Preset::nanochat);
  const auto mixed = parse_run_config("train.scalar_lr = 0.1\npreset = 'nanochat'\ndata.path = '/d'\n", "run.toml");
  EXPECT_EQ(mixed.config.train.scalar_lr, 0.1) << "what is written counts, before the preset or after it";
  EXPECT_TRUE(mixed.config.model.residual_lambdas);
  EXPECT_THAT(errors_of("preset = 'nanchat'\ndata.path = '/d'\n"),
              ElementsAre("run.toml:1:10: preset = \"nanchat\" is not known; expected assay or nanochat; did you mean "
                          "\"nanochat\"?"));
}

TEST(RunConfigToml, ErrorsHavePositions) {
  EXPECT_THAT(errors_of("data = {path = '/d'}\ntrain = {stesp = 3}\n"),
              ElementsAre("run.toml:2:10: unknown key \"train.stesp\" in a run config; did you mean \"train.steps\"?"));
  EXPECT_THAT(errors_of("data.path = '/d'\ntrain.steps = 2.5\n"),
              ElementsAre("run.toml:2:15: train.steps is a float; expected an integer"));
  EXPECT_THAT(errors_of("data.path = '/d'\n[train]\nsteps = 0\n"),
              ElementsAre("run.toml:3:1: train.steps = 0 is out of range; expected 1 to 1000000"));
  EXPECT_THAT(
      errors_of("data.path = '/d'\nrepeats = 2\n"),
      ElementsAre("run.toml:2:1: unknown key \"repeats\" in a run config; it belongs above the first table of a "
                  "spec"));
  EXPECT_THAT(errors_of(""), ElementsAre("run.toml: data.path is empty; expected the folder of the token shards"));
  EXPECT_THAT(errors_of("a = "), ElementsAre("run.toml:1:5: not TOML: key-value pair: encountered end-of-file"));
}

TEST(RunConfigToml, ARuleOverSeveralFieldsPointsAtTheOneThatIsSet) {
  EXPECT_THAT(
      errors_of("data.path = '/d'\ndevices = 3\n"),
      ElementsAre(::testing::StartsWith("run.toml:2:1: train.total_batch_tokens = 524288 is not divisible by")));
  EXPECT_THAT(errors_of("data.path = '/d'\ndevices = 3\ntrain.total_batch_tokens = 524288\n"),
              ElementsAre(::testing::StartsWith("run.toml:3:7: train.total_batch_tokens = 524288 is not divisible by")))
      << "its own key before the related ones";
}

TEST(RunConfigToml, FindsWhereASettingThatAMessageNamesIsSet) {
  const std::string text = "backend = \"cuda\"\ndata = {path = \"x\"}\nmodel = {depth = 2, vocab_size = 100}\n";
  const auto place = [&](std::string_view message) { return place_named_in(message, text, "run.toml"); };
  EXPECT_EQ(place("x holds token 7, but model.vocab_size = 100; set model.vocab_size"), "run.toml:3:21");
  EXPECT_EQ(place("data.path and model.depth"), "run.toml:2:9");
  EXPECT_EQ(place("backend = \"cuda\": there is none"), "run.toml:1:1");
  EXPECT_EQ(place("with the backend's own, model.depths, xmodel.depth"), "");
  EXPECT_EQ(place("lower train.device_batch"), "") << "the file does not set it";
  EXPECT_EQ(place_named_in("devices = 2; the cpu backend takes at most 1", "devices = 2", "run.toml"), "run.toml:1:1");
  EXPECT_EQ(place_named_in("model.depth", "not toml [", "run.toml"), "");
}

}  // namespace
}  // namespace assay
