#include "spec/toml_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/limits.h"
#include "base/utf8.h"

namespace assay {
namespace {

// The library builds and frees one table per part of a dotted key by recursion, so a key of 100,000 parts ends the
// process. This looks for such keys first. It reads the text as TOML does (strings and comments are skipped) up to the
// first mistake of syntax, and what comes after that is never parsed.
class KeyDepthCheck {
 public:
  explicit KeyDepthCheck(std::string_view text) : rest_(text) {}

  // The place of the first key with too many parts.
  std::optional<Position> find() {
    int parts = 1;
    while (!rest_.empty()) {
      const char c = rest_.front();
      if (c == '.' && ++parts > limits::toml_key_parts) return at_;
      if (c == '#') {
        skip(std::min(rest_.find('\n'), rest_.size()));
      } else if (c == '"' || c == '\'') {
        skip_string(c);
      } else {
        const bool in_key =
            c == '.' || c == ' ' || c == '\t' || c == '_' || c == '-' || std::isalnum(static_cast<unsigned char>(c));
        if (!in_key) parts = 1;
        skip(1);
      }
    }
    return std::nullopt;
  }

 private:
  void skip(size_t bytes) {
    for (const char c : rest_.substr(0, bytes)) {
      if (c == '\n') {
        at_ = {at_.line + 1, 1};
      } else if (!is_continuation(c)) {
        ++at_.column;  // columns count characters, as the library does
      }
    }
    rest_.remove_prefix(bytes);
  }

  void skip_string(char quote) {
    const std::string triple(3, quote);
    const bool many_lines = rest_.starts_with(triple);
    skip(many_lines ? 3 : 1);
    while (!rest_.empty()) {
      const char c = rest_.front();
      if (c == '\\' && quote == '"') {
        skip(std::min<size_t>(2, rest_.size()));
      } else if (many_lines && rest_.starts_with(triple)) {
        size_t quotes = 3;  // up to two quotes may stand right before the closing three
        while (quotes < 5 && quotes < rest_.size() && rest_[quotes] == quote) ++quotes;
        return skip(quotes);
      } else if (!many_lines && (c == quote || c == '\n')) {
        return skip(1);
      } else {
        skip(1);
      }
    }
  }

  std::string_view rest_;
  Position at_{1, 1};
};

bool is_line_end(std::string_view text, Position at) {
  for (int line = 1; line < at.line; ++line) text.remove_prefix(text.find('\n') + 1);
  text = text.substr(0, text.find('\n'));
  return std::ranges::count_if(text, [](char c) { return !is_continuation(c); }) < at.column;
}

// "Error while parsing array: encountered end-of-file" -> "not TOML: array: encountered end-of-file".
std::string describe(std::string_view text, const toml::parse_error& error) {
  std::string_view description = error.description();
  static constexpr std::string_view prefix = "Error while parsing ";
  if (description.starts_with(prefix)) description.remove_prefix(prefix.size());
  // The library calls a forgotten quote a control character: the line break.
  if (description.starts_with("string: unescaped control") && is_line_end(text, position_of(error.source())))
    return "not TOML: the string has no closing quote on its line";
  return fmt::format("not TOML: {}", printable(description, 200));
}

}  // namespace

std::optional<toml::table> parse_toml(std::string_view text, SpecErrors& errors) {
  if (text.size() > limits::spec_bytes) {
    errors.add({}, fmt::format("the file has {} bytes; expected at most {}", text.size(), limits::spec_bytes));
    return std::nullopt;
  }
  if (const auto at = KeyDepthCheck(text).find()) {
    errors.add(*at, fmt::format("the key has more than {} parts; expected at most 3, as in matrix.train.steps",
                                limits::toml_key_parts));
    return std::nullopt;
  }
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    errors.add(position_of(error.source()), describe(text, error));
    return std::nullopt;
  }
}

Position position_of(const toml::source_region& source) {
  return {static_cast<int>(source.begin.line), static_cast<int>(source.begin.column)};
}

std::vector<TomlEntry> entries_of(const toml::table& table) {
  std::vector<TomlEntry> entries;
  for (auto it = table.cbegin(); it != table.cend(); ++it) entries.push_back({&it->first, &it->second});
  std::ranges::stable_sort(entries, {}, [](const TomlEntry& e) { return position_of(*e.key); });
  return entries;
}

std::string_view kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return node.is_array_of_tables() ? "an array of tables" : "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a float";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time";
    case toml::node_type::date_time:
      return "a date and time";
    case toml::node_type::none:
      break;
  }
  return "nothing";
}

}  // namespace assay
