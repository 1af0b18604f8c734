#include "base/utf8.h"

#include <fmt/format.h>

namespace assay {
namespace {

constexpr size_t longest_character = 4;

// A cut at `at` would cut a character in two.
bool is_inside(std::string_view text, size_t at) {
  return at > 0 && at < text.size() && is_continuation(text[at]);
}

}  // namespace

Utf8Character first_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const Utf8Character stray{lead, 1, false};
  if (lead < 0x80) return {lead, 1, true};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || bytes > text.size()) return stray;
  char32_t code = lead & (0x7Fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if (!is_continuation(text[i])) return stray;
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < smallest[bytes] || surrogate || code > 0x10FFFF) return stray;
  return {code, bytes, true};
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (!c.valid) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

std::string to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (c.valid)
      out += text.substr(0, c.bytes);
    else
      out += '?';
    text.remove_prefix(c.bytes);
  }
  return out;
}

// A character has at most three continuation bytes; more is no UTF-8, and then any cut is as good.
std::string_view cut_end(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  for (size_t i = 1; i < longest_character && is_inside(text, end); ++i) --end;
  return text.substr(0, end);
}

std::string_view cut_start(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t start = text.size() - max_bytes;
  for (size_t i = 1; i < longest_character && is_inside(text, start); ++i) ++start;
  return text.substr(start);
}

std::string printable(std::string_view text, int longest) {
  std::string out;
  for (int shown = 0; !text.empty(); ++shown) {
    if (shown == longest) return out + "...";
    const Utf8Character c = first_character(text);
    if (!c.valid || c.code < 0x20 || c.code == 0x7F)
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c.code));
    else
      out += text.substr(0, c.bytes);
    text.remove_prefix(c.bytes);
  }
  return out;
}

std::string in_quotes(std::string_view text) {
  return '"' + printable(text, 64) + '"';
}

}  // namespace assay
