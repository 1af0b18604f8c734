#include "worker/utf8.h"

#include <cstdint>

namespace assay {
namespace {

bool between(uint8_t byte, int low, int high) {
  return byte >= low && byte <= high;
}

// Bytes of the well-formed sequence that `text` begins with, 0 if it begins with none. Source: Unicode 15, table 3-7.
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto follows = [&](size_t i) { return between(byte(i), 0x80, 0xBF); };
  const uint8_t lead = byte(0), second = byte(1);
  if (lead < 0x80) return 1;
  if (between(lead, 0xC2, 0xDF)) return follows(1) ? 2 : 0;
  if (between(lead, 0xE0, 0xEF)) {
    const bool good = between(second, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF);
    return good && follows(2) ? 3 : 0;
  }
  if (between(lead, 0xF0, 0xF4)) {
    const bool good = between(second, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF);
    return good && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    if (length == 0)
      out += '?';
    else
      out += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

}  // namespace assay
