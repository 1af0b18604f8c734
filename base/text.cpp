#include "base/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace assay {

std::string plural(int64_t n, std::string_view one) {
  return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s");
}

std::string and_more(size_t n) {
  return n == 0 ? std::string() : fmt::format(" and {} more", n);
}

std::string first_of(std::span<const std::string> texts, size_t shown) {
  const size_t n = std::min(texts.size(), shown);
  return fmt::format("{}{}", fmt::join(texts.first(n), ", "), and_more(texts.size() - n));
}

std::string first_lines(std::span<const std::string> texts, size_t shown) {
  const size_t n = std::min(texts.size(), shown);
  std::string lines = fmt::format("{}", fmt::join(texts.first(n), "\n"));
  return n < texts.size() ? lines + "\n..." + and_more(texts.size() - n) : lines;
}

}  // namespace assay
