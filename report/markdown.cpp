#include "report/markdown.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include "base/utf8.h"

namespace assay {
namespace {

bool is_control(char32_t c) {
  return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
}

// Control characters and bytes that are not UTF-8 become escapes.
std::string visible(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (!c.valid || (is_control(c.code) && c.code != '\r'))
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c.code));
    else if (c.code != '\r')
      out += text.substr(0, c.bytes);
    text.remove_prefix(c.bytes);
  }
  return out;
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80;
}

// An underscore between letters is no markup, and escaping it would make every run name ugly.
bool needs_escape(std::string_view text, size_t i) {
  if (text[i] == '_')
    return !(i > 0 && i + 1 < text.size() && is_word(text[i - 1]) && (is_word(text[i + 1]) || text[i + 1] == '_'));
  return std::string_view("\\`*[]<>|&~#").find(text[i]) != std::string_view::npos;
}

size_t longest_backtick_run(std::string_view text) {
  size_t longest = 0;
  size_t run = 0;
  for (char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

}  // namespace

std::string md_text(std::string_view text) {
  const std::string shown = visible(text);
  std::string out;
  for (size_t i = 0; i < shown.size(); ++i) {
    if (shown[i] == '\n' || shown[i] == '\t') {
      out += ' ';
      continue;
    }
    if (needs_escape(shown, i)) out += '\\';
    out += shown[i];
  }
  return out;
}

std::string md_code(std::string_view text, bool in_table) {
  std::string shown = visible(text);
  std::replace(shown.begin(), shown.end(), '\n', ' ');
  std::replace(shown.begin(), shown.end(), '\t', ' ');
  if (shown.empty()) return "` `";
  const std::string ticks(longest_backtick_run(shown) + 1, '`');
  const bool pad = shown.front() == '`' || shown.back() == '`' || (shown.front() == ' ' && shown.back() == ' ');
  if (in_table)
    for (size_t i = 0; (i = shown.find('|', i)) != std::string::npos; i += 2) shown.insert(i, 1, '\\');
  return ticks + (pad ? " " : "") + shown + (pad ? " " : "") + ticks;
}

std::string md_fence(std::string_view text) {
  std::string shown = visible(text);
  while (!shown.empty() && shown.back() == '\n') shown.pop_back();
  const std::string fence(std::max<size_t>(3, longest_backtick_run(shown) + 1), '`');
  return fence + "text\n" + shown + "\n" + fence + "\n";
}

std::string md_row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

std::string md_header(const std::vector<std::string>& titles, std::string_view alignment) {
  std::vector<std::string> rule;
  for (char side : alignment) rule.push_back(side == 'r' ? "---:" : "---");
  return md_row(titles) + md_row(rule);
}

}  // namespace assay
