#include "cli/format.h"

#include <fmt/core.h>
#include <wchar.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/utf8.h"

namespace assay {
namespace {

// Characters that move the cursor or reorder their neighbours: C0, DEL, C1, line separators, bidirectional controls.
bool is_unsafe(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0x200e || c == 0x200f ||
         (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

int columns(char32_t c) {
  if (c < 0x80) return 1;
  const int width = ::wcwidth(static_cast<wchar_t>(c));  // -1 where the locale does not know the character
  return width < 0 ? 1 : width;
}

std::string escape(char32_t c) {
  switch (c) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return c < 0x100 ? fmt::format("\\x{:02x}", static_cast<unsigned>(c))
                       : fmt::format("\\u{:04x}", static_cast<unsigned>(c));
  }
}

// The longest prefix (or suffix) of whole code points that fits into `width` columns.
std::string_view head(std::string_view text, int width) {
  size_t end = 0;
  for (int used = 0; end < text.size();) {
    const Utf8Character c = first_character(text.substr(end));
    used += columns(c.code);
    if (used > width) break;
    end += c.bytes;
  }
  return text.substr(0, end);
}

std::string_view tail(std::string_view text, int width) {
  int skip = display_width(text) - width;
  size_t start = 0;
  while (start < text.size() && skip > 0) {
    const Utf8Character c = first_character(text.substr(start));
    skip -= columns(c.code);
    start += c.bytes;
  }
  return text.substr(start);
}

// The first `width` - 1 - `back` columns and the last `back`.
std::string cut_at(std::string_view text, int width, int back) {
  if (display_width(text) <= width) return std::string(text);
  return std::string(head(text, width - 1 - back)) + "…" + std::string(tail(text, back));
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (!c.valid || is_unsafe(c.code))
      out += escape(c.code);
    else
      out += text.substr(0, c.bytes);
    text.remove_prefix(c.bytes);
  }
  return out;
}

std::string first_line(std::string_view text) {
  return printable(text.substr(0, text.find_first_of("\r\n")));
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    width += columns(c.code);
    text.remove_prefix(c.bytes);
  }
  return width;
}

std::string shorten(std::string_view text, int width) {
  if (display_width(text) <= width) return std::string(text);
  if (width <= 1) return width == 1 ? "…" : "";
  return cut_at(text, width, (width - 1) / 2);
}

std::string shorten_end(std::string_view text, int width) {
  return width < 1 ? std::string() : cut_at(text, width, 0);
}

std::vector<std::string> shorten_apart(std::vector<std::string> texts, int width) {
  constexpr size_t looked_at = 1'000;  // more names than a screen holds, few enough for every refresh
  if (width < 2 || std::all_of(texts.begin(), texts.end(), [&](const auto& t) { return display_width(t) <= width; }))
    return texts;
  const int middle = (width - 1) / 2;
  int best = middle;
  size_t most = 0;
  for (int distance = 0; distance < width; ++distance) {
    for (const int back : {middle + distance, middle - distance}) {
      if (back < 0 || back > width - 1) continue;
      std::unordered_set<std::string> different;
      for (size_t i = 0; i < std::min(texts.size(), looked_at); ++i) different.insert(cut_at(texts[i], width, back));
      if (different.size() <= most) continue;
      most = different.size();
      best = back;
    }
  }
  for (std::string& text : texts) text = cut_at(text, width, best);
  return texts;
}

std::string format_loss(double loss) {
  if (std::isnan(loss)) return "nan";
  if (std::isinf(loss)) return loss > 0 ? "inf" : "-inf";
  return fmt::format("{:.4f}", loss);
}

std::string format_rate(double per_second) {
  if (!std::isfinite(per_second) || per_second <= 0) return "-";
  return fmt::format("{:.0f}", per_second);
}

std::string format_bytes(double bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

std::string format_mib(double mib) {
  if (!std::isfinite(mib) || mib <= 0) return "-";
  return mib < 1024 ? fmt::format("{:.2f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

std::string format_duration(int64_t ms) {
  if (ms < 0) ms = 0;
  if (ms < 9'950) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000);
  const int64_t s = (ms + 500) / 1000;
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}m {:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h {:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d {:02}h", s / 86400, s % 86400 / 3600);
}

std::string format_count(double n) {
  constexpr const char* units[] = {"", "K", "M", "B", "T"};
  int unit = 0;
  for (; n >= 999.5 && unit < 4; ++unit) n /= 1000;
  if (unit == 0) return fmt::format("{:.0f}", n);
  return fmt::format("{:.{}f}{}", n, n < 9.995 ? 2 : n < 99.95 ? 1 : 0, units[unit]);
}

std::string progress_bar(double fraction, int width, bool ascii) {
  constexpr const char* parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  fraction = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  const int eighths = static_cast<int>(fraction * width * 8 + 1e-9);
  const int full = eighths / 8;
  std::string bar;
  for (int i = 0; i < full; ++i) bar += ascii ? "#" : "█";
  int used = full;
  if (!ascii && eighths % 8 != 0) {
    bar += parts[eighths % 8];
    ++used;
  }
  return bar + std::string(static_cast<size_t>(width - used), ascii ? '.' : ' ');
}

}  // namespace assay
