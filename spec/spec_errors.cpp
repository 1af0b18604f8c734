#include "spec/spec_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/limits.h"
#include "base/text.h"

namespace assay {
namespace {

constexpr size_t longest_compared = limits::name_chars;  // bounds the work per hostile key or name

// Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours cost 1.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

bool is_name_char(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

}  // namespace

std::string SpecError::to_string() const {
  return line == 0 ? fmt::format("{}: {}", file, message) : fmt::format("{}:{}:{}: {}", file, line, column, message);
}

void SpecErrors::add(Position at, std::string message) {
  errors_.push_back({file_, at.line, at.column, std::move(message)});
}

std::vector<SpecError> SpecErrors::take() {
  const auto place = [](const SpecError& e) { return std::tie(e.line, e.column); };
  std::ranges::stable_sort(errors_, {}, place);
  if (errors_.size() > limits::spec_errors_shown) {
    const size_t more = errors_.size() - limits::spec_errors_shown;
    errors_.resize(limits::spec_errors_shown);
    errors_.push_back({file_, 0, 0, plural(static_cast<int64_t>(more), "more error") + " not shown"});
  }
  return std::move(errors_);
}

std::optional<std::string_view> nearest(std::string_view text, std::span<const std::string_view> candidates) {
  if (text.empty() || text.size() > longest_compared) return std::nullopt;
  std::optional<std::string_view> best;
  size_t best_distance = SIZE_MAX;
  for (const std::string_view candidate : candidates) {
    const auto [shorter, longer] = std::minmax({text.size(), candidate.size()});
    const size_t near_enough = std::min(best_distance - 1, std::max<size_t>(1, (longer + 1) / 3));
    if (longer - shorter > near_enough) continue;
    const size_t distance = edit_distance(text, candidate);
    if (distance > near_enough) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

std::string did_you_mean(std::optional<std::string_view> candidate) {
  return candidate ? fmt::format("; did you mean \"{}\"?", *candidate) : std::string();
}

std::string one_of(std::span<const std::string_view> values) {
  std::string text;
  for (size_t i = 0; i < values.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == values.size() ? " or " : ", ", values[i]);
  return text;
}

std::optional<std::string> name_problem(std::string_view name) {
  static constexpr std::string_view expected =
      "expected letters, digits, '.', '_' and '-', beginning with a letter, digit or '_'";
  if (name.empty()) return fmt::format("is empty; {}", expected);
  if (name.size() > limits::name_chars)
    return fmt::format("is {} characters long; expected at most {}", name.size(), limits::name_chars);
  if (!std::ranges::all_of(name, is_name_char))
    return fmt::format("has a character that cannot be in a file name everywhere; {}", expected);
  if (name.front() == '.' || name.front() == '-') return fmt::format("starts with '{}'; {}", name.front(), expected);
  return std::nullopt;
}

}  // namespace assay
