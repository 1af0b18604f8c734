// Private to spec/: the keys of a spec that are no values of a run, and where a key belongs that stands elsewhere.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

// Above the first table.
inline constexpr std::array<std::string_view, 6> header_keys = {"experiment", "tag",      "repeats",
                                                                "on_failure", "priority", "baseline"};
// The tables.
inline constexpr std::array<std::string_view, 5> section_keys = {"defaults", "matrix", "exclude", "runs", "retry"};
inline constexpr std::array<std::string_view, 3> retry_keys = {"max_attempts", "on", "backoff_s"};
// Of [[runs]], besides a run's values.
inline constexpr std::array<std::string_view, 1> run_keys = {"name"};

// "above the first table of a spec", "in [retry] of a spec", ...: where this key may stand; nothing if it is none of a
// spec's own. Values of runs are not looked at.
std::optional<std::string> place_for(std::string_view key);

// `; it belongs in [retry] of a spec`, `; did you mean "repeats", which belongs above ...?`, or nothing.
std::string belongs_elsewhere(std::string_view key);

// The values of a run that a key in the wrong table or without its table probably means, best first: the same key in
// another table, keys that end or begin with it as a whole word ("lr" is four rates), else the nearest one.
// `others`: keys that the caller's table may have as well.
std::vector<std::string_view> meant_paths(std::string_view path, std::span<const std::string_view> others = {});

// `; did you mean "a"?`, `; did you mean "a", "b" or "c"?`, or nothing. `prefix` goes before each.
std::string did_you_mean(std::span<const std::string_view> candidates, std::string_view prefix = {});

}  // namespace assay
