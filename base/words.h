// Enums whose values are also words: in the database, on the wire, on the command line, in the docs. Such an enum is
// written once, as a list of X(enumerator, "word", "meaning"), and everything else about it is derived from the list:
//
//   #define ASSAY_COLOURS(X) X(red, "red", "stop") X(green, "green", "go")
//   ASSAY_WORDS(Colour, "colour", ASSAY_COLOURS)
//
// gives `enum class Colour { red, green }`, to_string(Colour::red), find_word<Colour>("red"),
// parse_word<Colour>("red"), words_of(Colour{}) (all words with their meanings, in enum order) and word_list<Colour>()
// for messages.
#pragma once

#include <array>
#include <cstddef>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

#define ASSAY_WORD_ENUMERATOR_(enumerator, word, meaning) enumerator,
#define ASSAY_WORD_ENTRY_(enumerator, word, meaning) ::assay::Word{word, meaning},
// `title`: what one of them is called in a message, "run state".
#define ASSAY_WORDS(Enum, title, LIST)                                       \
  enum class Enum { LIST(ASSAY_WORD_ENUMERATOR_) };                          \
  inline constexpr ::assay::Word Enum##_words[] = {LIST(ASSAY_WORD_ENTRY_)}; \
  constexpr std::span<const ::assay::Word> words_of(Enum) {                  \
    return Enum##_words;                                                     \
  }                                                                          \
  constexpr std::string_view title_of(Enum) {                                \
    return title;                                                            \
  }                                                                          \
  static_assert(true)

namespace assay {

struct Word {
  std::string_view text;
  std::string_view meaning;  // a line for the docs; empty where the word says it all
};

template <class E>
concept WordEnum = requires {
  words_of(E{});
};

template <WordEnum E>
constexpr std::string_view to_string(E value) {
  return words_of(value)[static_cast<size_t>(value)].text;
}

// The texts alone, in enum order.
template <WordEnum E>
inline constexpr auto word_texts = [] {
  std::array<std::string_view, std::size(words_of(E{}))> texts;
  for (size_t i = 0; i < texts.size(); ++i) texts[i] = words_of(E{})[i].text;
  return texts;
}();

template <WordEnum E>
constexpr std::optional<E> find_word(std::string_view text) {
  const auto words = words_of(E{});
  for (size_t i = 0; i < words.size(); ++i)
    if (words[i].text == text) return static_cast<E>(i);
  return std::nullopt;
}

// `"bogus" is no run state; expected queued, held or running`, as an invalid_argument.
Error unknown_word(std::string_view text, std::string_view title, std::span<const Word> known);
// "queued, held or running"
std::string word_list(std::span<const Word> words);

template <WordEnum E>
Result<E> parse_word(std::string_view text) {
  if (const auto found = find_word<E>(text)) return *found;
  return unknown_word(text, title_of(E{}), words_of(E{}));
}

template <WordEnum E>
std::string word_list() {
  return word_list(words_of(E{}));
}

}  // namespace assay
