#include "base/words.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace assay {

std::string word_list(std::span<const Word> words) {
  std::string list;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) list += i + 1 == words.size() ? " or " : ", ";
    list += words[i].text;
  }
  return list;
}

Error unknown_word(std::string_view text, std::string_view title, std::span<const Word> known) {
  return Error{ErrorCode::invalid_argument,
               fmt::format("{} is no {}; expected {}", in_quotes(text), title, word_list(known))};
}

}  // namespace assay
