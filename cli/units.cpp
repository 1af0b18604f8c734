#include "cli/units.h"

#include <fmt/format.h>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>

#include "cli/format.h"

namespace assay {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit time_units[] = {{"", 1e3}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
constexpr double k = 1024;
constexpr Unit size_units[] = {{"", 1},          {"B", 1},          {"k", k},           {"K", k},
                               {"KiB", k},       {"M", k* k},       {"MiB", k* k},      {"G", k* k* k},
                               {"GiB", k* k* k}, {"T", k* k* k* k}, {"TiB", k* k* k* k}};
constexpr double largest = 9e15;  // whole numbers are exact in a double up to here: 285,000 years, 8 PiB

// A number followed by one of the units; nothing if the text is anything else.
std::optional<int64_t> parse(std::string_view text, std::span<const Unit> units) {
  double number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (failed != std::errc() || std::signbit(number) || !std::isfinite(number)) return std::nullopt;
  const std::string_view name(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const Unit& unit : units)
    if (unit.name == name && number * unit.factor <= largest)
      return static_cast<int64_t>(std::llround(number * unit.factor));
  return std::nullopt;
}

template <class Parse>
void add_unit_option(CLI::App* verb, const std::string& name, int64_t& value, const std::string& what, const char* type,
                     Parse parse_text) {
  verb->add_option_function<std::string>(
          name,
          [&value, name, parse_text](const std::string& text) {
            const Result<int64_t> parsed = parse_text(text);
            if (!parsed.ok()) throw CLI::ValidationError(name, parsed.error().message);
            value = *parsed;
          },
          what)
      ->type_name(type);
}

}  // namespace

Result<int64_t> parse_duration_ms(std::string_view text) {
  if (const auto ms = parse(text, time_units)) return *ms;
  return Error{ErrorCode::invalid_argument,
               fmt::format("\"{}\" is no duration; write seconds, or 90s, 5m, 2h, 1d", printable(text))};
}

Result<int64_t> parse_bytes(std::string_view text) {
  if (const auto bytes = parse(text, size_units)) return *bytes;
  return Error{ErrorCode::invalid_argument,
               fmt::format("\"{}\" is no size; write bytes, or 10k, 1M, 2G (1k = 1,024)", printable(text))};
}

void add_duration(CLI::App* verb, const std::string& name, int64_t& ms, const std::string& what) {
  add_unit_option(verb, name, ms, what, "DURATION", parse_duration_ms);
}

void add_bytes(CLI::App* verb, const std::string& name, int64_t& bytes, const std::string& what) {
  add_unit_option(verb, name, bytes, what, "SIZE", [](std::string_view text) -> Result<int64_t> {
    auto parsed = parse_bytes(text);
    if (parsed.ok() && *parsed == 0) return Error{ErrorCode::invalid_argument, "must be more than 0"};
    return parsed;
  });
}

void add_count(CLI::App* verb, const std::string& name, int64_t& count, int64_t least, const std::string& what) {
  add_unit_option(verb, name, count, what, "N", [least](std::string_view text) -> Result<int64_t> {
    int64_t number = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failed == std::errc() && end == text.data() + text.size() && number >= least) return number;
    return Error{ErrorCode::invalid_argument,
                 fmt::format("\"{}\" is no whole number of at least {}", printable(text), least)};
  });
}

}  // namespace assay
