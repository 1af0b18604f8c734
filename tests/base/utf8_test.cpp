#include "base/utf8.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace assay {
namespace {

TEST(Utf8, WellFormedTextIsUnchanged) {
  for (const std::string text :
       {"", "plain\n", "h\xC3\xA9", "\xE2\x82\xAC 5", "\xF0\x9F\x98\x80", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80",
        "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(to_utf8(text), text);
    EXPECT_TRUE(is_utf8(text)) << text;
  }
  EXPECT_EQ(to_utf8(std::string("a\0b", 3)), std::string("a\0b", 3));
}

TEST(Utf8, EveryStrayByteBecomesAQuestionMark) {
  for (const auto& [bytes, repaired] : std::initializer_list<std::pair<std::string, std::string>>{
           {"a\x80z", "a?z"},                        // continuation without a lead
           {"\xC0\xAF", "??"},                       // '/' in two bytes
           {"\xC1\xBF", "??"},                       // overlong
           {"\xE0\x80\x80", "???"},                  // overlong
           {"\xE0\x9F\xBF", "???"},                  // U+07FF in three bytes
           {"\xF0\x80\x80\x80", "????"},             // overlong
           {"\xF0\x8F\xBF\xBF", "????"},             // U+FFFF in four bytes
           {"\xED\xA0\x80", "???"},                  // first surrogate
           {"\xED\xBF\xBF", "???"},                  // last surrogate
           {"\xF4\x90\x80\x80", "????"},             // U+110000
           {"\xF5\x80\x80\x80", "????"},             // no lead byte
           {"\xF8\x88\x80\x80\x80", "?????"},        // five bytes
           {"\xFE\xFF", "??"},                       // a byte order mark of UTF-16
           {"cut \xE2\x82", "cut ??"},               // a log tail may begin and end inside a character
           {"\xE2\x82Z", "??Z"},                     // cut by another character
           {"\xF0\x9F\x98", "???"},                  //
           {"\x98\x80 \xC3\xA9", "?? \xC3\xA9"}}) {  // what follows is read again from its own beginning
    EXPECT_EQ(to_utf8(bytes), repaired);
    EXPECT_FALSE(is_utf8(bytes)) << repaired;
    EXPECT_TRUE(is_utf8(to_utf8(bytes)));
  }
}

TEST(Utf8, CodePointsAreDecoded) {
  const auto code = [](std::string_view text) { return first_character(text).code; };
  EXPECT_EQ(code("A"), U'A');
  EXPECT_EQ(code("\xC3\xA9..."), U'\u00e9');
  EXPECT_EQ(code("\xE2\x82\xAC"), U'\u20ac');
  EXPECT_EQ(code("\xF4\x8F\xBF\xBF"), U'\U0010ffff');
  const Utf8Character stray = first_character("\xC3(");
  EXPECT_FALSE(stray.valid);
  EXPECT_EQ(stray.bytes, 1u);
  EXPECT_EQ(stray.code, 0xC3u);
}

TEST(Utf8, NoCharacterIsCutInTwo) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";  // 1 + 2 + 3 + 4 + 1 bytes
  const size_t starts[] = {0, 1, 3, 6, 10, 11};
  for (size_t most = 0; most <= text.size() + 1; ++most) {
    const std::string_view head = cut_end(text, most), tail = cut_start(text, most);
    EXPECT_LE(head.size(), most);
    EXPECT_LE(tail.size(), most);
    EXPECT_TRUE(is_utf8(head)) << most;
    EXPECT_TRUE(is_utf8(tail)) << most;
    EXPECT_TRUE(text.starts_with(head) && text.ends_with(tail));
    // As much as fits: the next character would not.
    const size_t* next = std::upper_bound(std::begin(starts), std::end(starts), head.size());
    EXPECT_TRUE(next == std::end(starts) || *next > most) << most;
  }
  // Bytes that are no UTF-8 are cut somewhere near.
  EXPECT_GE(cut_end(std::string(100, '\x80'), 50).size(), 47u);
  EXPECT_GE(cut_start(std::string(100, '\x80'), 50).size(), 47u);
}

TEST(Utf8, ForMessagesControlsAndStrayBytesAreEscaped) {
  EXPECT_EQ(in_quotes("a\nb\x7F\xC0\xAF\xC3\xA9"), "\"a\\x0ab\\x7f\\xc0\\xaf\xC3\xA9\"");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace assay
