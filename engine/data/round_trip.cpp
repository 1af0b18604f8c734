#include "engine/data/round_trip.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"

namespace assay {
namespace {

// Text around a position, for a message: whole characters.
std::string excerpt(std::string_view text, size_t at) {
  constexpr size_t around = 24;
  const auto within = [&](size_t i) { return i < text.size() && is_continuation(text[i]); };
  size_t begin = std::min(at, text.size());
  begin -= std::min(begin, around);
  size_t end = std::min(at + around, text.size());
  while (within(begin)) ++begin;
  while (within(end)) ++end;
  return std::string(text.substr(begin, end - begin));
}

int64_t line_ends(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace

void RoundTrip::add(const RoundTrip& next) {
  if (path.empty() && !next.path.empty()) {
    path = next.path;
    line = next.line;
    text = next.text;
    decoded = next.decoded;
  }
  documents_changed += next.documents_changed;
  bytes_changed += next.bytes_changed;
  line_ends_lost += next.line_ends_lost;
  unknown_tokens += next.unknown_tokens;
}

RoundTrip compare_decoded(const Document& document, const std::string& decoded) {
  const std::string& text = document.text;
  if (decoded == text) return {};
  const auto at =
      static_cast<size_t>(std::mismatch(text.begin(), text.end(), decoded.begin(), decoded.end()).first - text.begin());
  return {.documents_changed = 1,
          .bytes_changed = static_cast<int64_t>(text.size()),
          .line_ends_lost = std::max<int64_t>(0, line_ends(text) - line_ends(decoded)),
          .path = document.path,
          .line = document.line + line_ends(std::string_view(text).substr(0, at)),
          .text = excerpt(text, at),
          .decoded = excerpt(decoded, at)};
}

std::string describe(const RoundTrip& r, int64_t documents) {
  return fmt::format(
      "warning: the tokenizer does not keep the text: {} of {} documents ({} bytes) come back changed from their "
      "tokens, {} line ends are lost, {} tokens are unknown; first in {}, line {}: \"{}\" comes back as \"{}\"",
      r.documents_changed, documents, r.bytes_changed, r.line_ends_lost, r.unknown_tokens, r.path, r.line, r.text,
      r.decoded);
}

}  // namespace assay
