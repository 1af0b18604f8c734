#include "report/markdown.h"

#include <gtest/gtest.h>

namespace assay {
namespace {

TEST(Markdown, RunNamesStayAsTheyAre) {
  EXPECT_EQ(md_text("moe_fp8_experts_static.fail1"), "moe_fp8_experts_static.fail1");
}

TEST(Markdown, MarkupIsEscaped) {
  EXPECT_EQ(md_text("a|b"), "a\\|b");
  EXPECT_EQ(md_text("*x* <b> [l](u) `c`"), "\\*x\\* \\<b\\> \\[l\\](u) \\`c\\`");
  EXPECT_EQ(md_text("_emphasis_"), "\\_emphasis\\_");
  EXPECT_EQ(md_text("two\nlines"), "two lines");
}

TEST(Markdown, ControlCharactersAndBadBytesAreShown) {
  EXPECT_EQ(md_text("\x1b[31mred"), "\\\\x1b\\[31mred");
  EXPECT_EQ(md_code(std::string("a\0b", 3)), "`a\\x00b`");
  EXPECT_EQ(md_code("caf\xc3\xa9"), "`caf\xc3\xa9`");
  EXPECT_EQ(md_code("caf\xe9"), "`caf\\xe9`");
}

TEST(Markdown, CodeSpanOutgrowsItsBackticks) {
  EXPECT_EQ(md_code("plain"), "`plain`");
  EXPECT_EQ(md_code("a`b"), "``a`b``");
  EXPECT_EQ(md_code("`q`"), "`` `q` ``");
  EXPECT_EQ(md_code("a|b", true), "`a\\|b`");
  EXPECT_EQ(md_code(""), "` `");
}

TEST(Markdown, FenceCannotBeBrokenOutOf) {
  EXPECT_EQ(md_fence("line\n"), "```text\nline\n```\n");
  const std::string fenced = md_fence("before\n````\n# not a heading\n````\nafter");
  EXPECT_EQ(fenced, "`````text\nbefore\n````\n# not a heading\n````\nafter\n`````\n");
}

TEST(Markdown, TablesHaveTheRuleOfTheReference) {
  EXPECT_EQ(md_header({"run", "loss"}, "lr"), "| run | loss |\n| --- | ---: |\n");
}

}  // namespace
}  // namespace assay
