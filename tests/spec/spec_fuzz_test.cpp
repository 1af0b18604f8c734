// Specs damaged at random: the parser either succeeds with valid runs or gives errors inside the file; it never
// crashes.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/utf8.h"
#include "spec/experiment_spec.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

constexpr std::string_view seed_spec = R"(experiment = "fuzz"
tag = "t1"
repeats = 2
on_failure = "stop_cell"
priority = 3
baseline = "moe_bf16_matrix_lr0.02"
[defaults]
devices = 1
"train.seed" = 0x1f
model = {depth = 2, experts = 4, top_k = 2, vocab_size = 512, sequence_len = 64}
train = {steps = 4, total_batch_tokens = 1_024, device_batch = 8}
data.path = 'corpus'   # a comment
[matrix]
precision = ["bf16", "fp8_experts"]
train.matrix_lr = [0.02, 4e-2,]
[[exclude]]
precision = "fp8_experts"
train.matrix_lr = 0.04
[[runs]]
name = "own"
fault = {kind = "crash", step = 3, attempts = 1}
[[runs]]
data.path = """
multi"""
[retry]
max_attempts = 2
on = ["crashed"]
)";

const std::vector<std::string_view> fragments = {"[",
                                                 "]",
                                                 "[[",
                                                 "]]",
                                                 "{",
                                                 "}",
                                                 "=",
                                                 ".",
                                                 ",",
                                                 "\"",
                                                 "'",
                                                 "\"\"\"",
                                                 "'''",
                                                 "\n",
                                                 "#",
                                                 "\\",
                                                 "\\u0000",
                                                 "nan",
                                                 "inf",
                                                 "-",
                                                 "1e999",
                                                 "0x",
                                                 "true",
                                                 "\xff",
                                                 "\r",
                                                 "é",
                                                 "999999999",
                                                 "1.5",
                                                 "[]",
                                                 "{}",
                                                 "[matrix]\n",
                                                 "[[runs]]\n",
                                                 "train.",
                                                 "name",
                                                 "a.a.a.a.a",
                                                 "\xe2\x82",
                                                 "= 1\n",
                                                 "-9223372036854775808",
                                                 "9223372036854775807",
                                                 "1979-05-27",
                                                 "07:32:00",
                                                 "precision",
                                                 "model",
                                                 "fp8",
                                                 "data"};

const std::vector<std::string_view> values = {"0",
                                              "1",
                                              "3",
                                              "-1",
                                              "0.5",
                                              "1e300",
                                              "true",
                                              "\"bf16\"",
                                              "\"static\"",
                                              "\"é\"",
                                              "[]",
                                              "[1, 2]",
                                              "[0.1, 1]",
                                              "[true, false]",
                                              "[\"bf16\", \"fp32\"]",
                                              "{}",
                                              "{steps = 2}",
                                              "9223372036854775807",
                                              "nan",
                                              "'S'",
                                              "1979-05-27",
                                              "\"rowwise\""};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  // Half the texts get damaged bytes (most are no longer TOML), half other lines and values (most still are).
  std::string mutate(std::string text) {
    const bool bytes = random_() % 2 == 0;
    for (uint64_t n = 1 + random_() % 3; n > 0; --n) bytes ? damage_bytes(text) : change_lines(text);
    return text;
  }

 private:
  size_t place(const std::string& text) { return random_() % (text.size() + 1); }
  std::string_view pick(const std::vector<std::string_view>& from) { return from[random_() % from.size()]; }

  void damage_bytes(std::string& text) {
    const size_t at = place(text);
    const size_t length = random_() % 20;
    switch (random_() % 5) {
      case 0:
        text.insert(at, pick(fragments));
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(place(text), text.substr(at, length));
        break;  // copies a piece elsewhere
      case 3:
        text.insert(at, 1, static_cast<char>(random_() % 256));
        break;
      case 4:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random_() % 8));
        break;
    }
  }

  void change_lines(std::string& text) {
    const size_t begin = text.rfind('\n', place(text)) + 1;
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    const size_t value = line.find("= ");
    switch (random_() % 4) {
      case 0:
        text.erase(begin, std::min(end + 1, text.size()) - begin);
        break;
      case 1:
        text.insert(text.rfind('\n', place(text)) + 1, line + "\n");
        break;
      default:
        if (value != std::string::npos) text.replace(begin + value + 2, line.size() - value - 2, pick(values));
        break;
    }
  }

  std::mt19937_64 random_;
};

void check_errors(const std::vector<SpecError>& errors, const std::string& text) {
  const auto lines = std::count(text.begin(), text.end(), '\n') + 1;
  ASSERT_LE(errors.size(), limits::spec_errors_shown + 1);
  std::pair<int, int> last{0, 0};
  for (size_t i = 0; i < errors.size(); ++i) {
    const SpecError& error = errors[i];
    ASSERT_FALSE(error.message.empty());
    ASSERT_TRUE(is_utf8(error.message)) << "protobuf strings must be UTF-8";
    ASSERT_EQ(error.message.find('\n'), std::string::npos) << error.message;
    ASSERT_LE(error.line, lines + 1) << error.to_string() << "\n" << text;
    ASSERT_EQ(error.line == 0, error.column == 0);
    if (i == limits::spec_errors_shown) continue;
    ASSERT_GE(std::make_pair(error.line, error.column), last) << "in file order";
    last = {error.line, error.column};
  }
}

constexpr int rounds = 5'000;

TEST(SpecFuzz, DamagedSpecsGiveErrorsOrValidRuns) {
  Mutator mutator(20260224);
  int valid = 0, not_toml = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string text = mutator.mutate(std::string(seed_spec));
    const SpecResult result = parse_experiment(text, "f.toml", "/base");
    ASSERT_NO_FATAL_FAILURE(check_errors(result.errors, text));
    not_toml += !result.ok() && result.errors[0].message.starts_with("not TOML");
    if (!result.ok()) continue;
    ++valid;
    ASSERT_FALSE(result.spec.runs.empty()) << text;
    for (const PlannedRun& run : result.spec.runs) ASSERT_TRUE(validate(run.config).empty()) << text;
  }
  // The damage must reach every stage: syntax, checks, expansion.
  EXPECT_GT(valid, rounds / 20);
  EXPECT_GT(not_toml, rounds / 20);
  EXPECT_GT(rounds - valid - not_toml, rounds / 20);
}

TEST(SpecFuzz, DamagedRunConfigsGiveErrorsOrValidConfigs) {
  Mutator mutator(4711);
  RunConfig config;
  config.data.path = "/data";
  const std::string original = to_toml(config);
  int valid = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string text = mutator.mutate(original);
    const RunConfigResult result = parse_run_config(text, "f.toml");
    ASSERT_NO_FATAL_FAILURE(check_errors(result.errors, text));
    if (!result.errors.empty()) continue;
    ++valid;
    ASSERT_TRUE(validate(result.config).empty()) << text;
    ASSERT_EQ(to_toml(parse_run_config(to_toml(result.config), "f.toml").config), to_toml(result.config));
  }
  EXPECT_GT(valid, rounds / 20);
  EXPECT_LT(valid, rounds / 2);
}

}  // namespace
}  // namespace assay
