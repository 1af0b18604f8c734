// The tables of docs/ that come from the code: the words of spec/words.h, the fields of a step. `./run docs` writes them.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "base/file.h"
#include "spec/config_fields.h"
#include "spec/step_metrics.h"
#include "spec/words.h"
#include "tests/support/docs_block.h"
#include "tests/support/paths.h"

namespace assay {
namespace {

// `none`: that nothing is said is no word to document.
template <WordEnum E>
std::string table_of(std::string_view title) {
  std::vector<std::vector<std::string>> rows;
  for (const Word& word : words_of(E{}))
    if (word.text != "none") rows.push_back({"`" + std::string(word.text) + "`", std::string(word.meaning)});
  return docs_table(std::array{title, std::string_view("meaning")}, rows);
}

TEST(Docs, FailureReasons) {
  EXPECT_EQ(docs_block_problem("docs/spec.md", "failure reasons", table_of<FailureReason>("reason")), "");
}
TEST(Docs, RunStates) {
  EXPECT_EQ(docs_block_problem("docs/cli.md", "run states", table_of<RunState>("`state` of a run")), "");
}
TEST(Docs, AttemptStates) {
  EXPECT_EQ(docs_block_problem("docs/cli.md", "attempt states", table_of<AttemptState>("`state` of an attempt")), "");
}
TEST(Docs, Phases) {
  EXPECT_EQ(docs_block_problem("docs/cli.md", "phases", table_of<Phase>("`phase`")), "");
}
TEST(Docs, AttemptResults) {
  EXPECT_EQ(docs_block_problem("docs/cli.md", "attempt results", table_of<AttemptResult>("`result`")), "");
}
TEST(Docs, EventKinds) {
  EXPECT_EQ(docs_block_problem("docs/cli.md", "event kinds", table_of<EventKind>("`kind` of an event")), "");
}
TEST(Docs, DeviceStates) {
  EXPECT_EQ(docs_block_problem("docs/cli.md", "device states", table_of<DeviceState>("`state` of a device")), "");
}

TEST(Docs, StepMetrics) {
  std::vector<std::vector<std::string>> rows;
  for (const StepField& field : step_fields)
    rows.push_back({fmt::format("`{}`", field.name), field.is_integer() ? "integer" : "float", std::string(field.unit),
                    std::to_string(field.since), std::string(field.meaning)});
  static constexpr std::array<std::string_view, 5> titles = {"field", "type", "unit", "since", "meaning"};
  EXPECT_EQ(docs_block_problem("docs/cli.md", "step metrics", docs_table(titles, rows)), "");
}

// The rows of docs/spec.md say more than the code does, so they are written by hand: the words in them are compared.
TEST(Docs, ChoicesOfTheConfig) {
  const std::string text = read_file(source_dir() + "/docs/spec.md", 1 << 20).value();
  for (const ConfigField& field : config_fields()) {
    if (field.kind != ValueKind::choice) continue;
    const std::string start = fmt::format("\n| `{}` | ", field.last());
    const size_t row = text.find(start);
    ASSERT_NE(row, std::string::npos) << "docs/spec.md has no row for " << field.path;
    const size_t cell = row + start.size();
    const std::string told = text.substr(cell, text.find(" |", cell) - cell);
    if (told == "see below") {
      for (const std::string_view choice : field.choices)
        EXPECT_NE(text.find(fmt::format("`{}`", choice), cell), std::string::npos) << field.path << " " << choice;
    } else {
      EXPECT_EQ(told, fmt::format("`{}`", fmt::join(field.choices, "`, `"))) << "docs/spec.md, " << field.path;
    }
  }
}

}  // namespace
}  // namespace assay
