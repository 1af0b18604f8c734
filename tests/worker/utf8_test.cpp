#include "worker/utf8.h"

#include <gtest/gtest.h>

namespace assay {
namespace {

TEST(Utf8, WellFormedTextIsUnchanged) {
  for (const std::string text :
       {"", "plain\n", "h\xC3\xA9", "\xE2\x82\xAC 5", "\xF0\x9F\x98\x80", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(to_utf8(text), text);
}

TEST(Utf8, EveryStrayByteBecomesAQuestionMark) {
  EXPECT_EQ(to_utf8("a\x80z"), "a?z");             // continuation without a lead
  EXPECT_EQ(to_utf8("\xC0\xAF"), "??");            // overlong
  EXPECT_EQ(to_utf8("\xE0\x80\x80"), "???");       // overlong
  EXPECT_EQ(to_utf8("\xED\xA0\x80"), "???");       // surrogate
  EXPECT_EQ(to_utf8("\xF4\x90\x80\x80"), "????");  // beyond U+10FFFF
  EXPECT_EQ(to_utf8("\xF5z"), "?z");
  EXPECT_EQ(to_utf8("cut \xE2\x82"), "cut ??");  // a log tail may begin and end inside a character
  EXPECT_EQ(to_utf8("\xE2\x82Z"), "??Z");
}

}  // namespace
}  // namespace assay
