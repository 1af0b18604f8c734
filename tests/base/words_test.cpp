#include "base/words.h"

#include <gtest/gtest.h>

namespace assay {
namespace {

#define ASSAY_TEST_COLOURS(X) \
  X(red, "red", "stop")       \
  X(green_, "green", "go")    \
  X(blue, "blue", "")
ASSAY_WORDS(Colour, "colour", ASSAY_TEST_COLOURS);

static_assert(to_string(Colour::green_) == "green");
static_assert(find_word<Colour>("blue") == Colour::blue);
static_assert(word_texts<Colour>[2] == "blue");
static_assert(words_of(Colour{})[0].meaning == "stop");

TEST(Words, ReadBackWhatTheyPrint) {
  for (const Colour colour : {Colour::red, Colour::green_, Colour::blue}) {
    const auto read = parse_word<Colour>(to_string(colour));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(*read, colour);
  }
}

TEST(Words, AnUnknownOneIsNamedWithWhatWasExpected) {
  for (const char* text : {"", "gren", "Red", "red "}) {
    const auto read = parse_word<Colour>(text);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(read.error().message, '"' + std::string(text) + "\" is no colour; expected red, green or blue");
    EXPECT_EQ(find_word<Colour>(text), std::nullopt);
  }
}

TEST(Words, AListReadsAsASentence) {
  EXPECT_EQ(word_list<Colour>(), "red, green or blue");
  EXPECT_EQ(word_list(words_of(Colour{}).first(1)), "red");
  EXPECT_EQ(word_list({}), "");
}

}  // namespace
}  // namespace assay
