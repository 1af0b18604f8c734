#include "base/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace assay {
namespace {

TEST(Text, CountsAreInWords) {
  EXPECT_EQ(plural(0, "run"), "0 runs");
  EXPECT_EQ(plural(1, "run"), "1 run");
  EXPECT_EQ(plural(2, "CPU core"), "2 CPU cores");
}

TEST(Text, AListThatGoesOnSaysHowFar) {
  const std::vector<std::string> names = {"a", "b", "c"};
  EXPECT_EQ(first_of(names, 3), "a, b, c");
  EXPECT_EQ(first_of(names, 2), "a, b and 1 more");
  EXPECT_EQ(first_of({}, 2), "");
  EXPECT_EQ(first_lines(names, 3), "a\nb\nc");
  EXPECT_EQ(first_lines(names, 1), "a\n... and 2 more");
  EXPECT_EQ(first_lines({}, 1), "");
  EXPECT_EQ(and_more(0), "");
}

}  // namespace
}  // namespace assay
