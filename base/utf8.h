// UTF-8 in text that may hold any bytes (a log, an error, a name that somebody typed): the one place that decodes it.
// Well-formed is what Unicode 15, table 3-7 allows: no overlong form, no surrogate, nothing above U+10FFFF, nothing
// cut.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace assay {

struct Utf8Character {
  char32_t code = 0;  // of a byte that begins no well-formed character: the byte
  size_t bytes = 1;
  bool valid = false;
};
// What `text`, which must not be empty, begins with.
Utf8Character first_character(std::string_view text);

bool is_utf8(std::string_view text);

// A byte that goes on with a character that an earlier byte began.
constexpr bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Fit for a protobuf string, a column of the database, a JSON file: every byte that is not part of a well-formed
// character becomes '?'. One byte for one byte (U+FFFD would be three), so what kept a limit keeps it.
std::string to_utf8(std::string_view text);

// At most `max_bytes` of text from its beginning (cut_end) or its end (cut_start), no character cut in two.
std::string_view cut_end(std::string_view text, size_t max_bytes);
std::string_view cut_start(std::string_view text, size_t max_bytes);

// The text on one line: control characters and bytes that are not UTF-8 escaped, cut after `longest` characters.
std::string printable(std::string_view text, int longest);
// "text" in double quotes for a message: the same, cut after 64 characters.
std::string in_quotes(std::string_view text);

}  // namespace assay
