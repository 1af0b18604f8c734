#include "spec/spec_keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "spec/config_fields.h"
#include "spec/spec_errors.h"

namespace assay {
namespace {

bool contains(std::span<const std::string_view> keys, std::string_view key) {
  return std::ranges::find(keys, key) != keys.end();
}

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);
}

// What others call a value of ours that has no like word in its name.
std::string_view in_our_words(std::string_view key) {
  return key == "learning_rate" ? "lr" : key;
}

// Keys of which `word` is the last whole word, or else those of which it is the first.
std::vector<std::string_view> paths_with_word(std::string_view word) {
  std::vector<std::string_view> ending, beginning;
  if (word.empty()) return ending;
  for (const ConfigField& field : config_fields()) {
    const std::string_view last = field.last();
    if (last.ends_with(fmt::format("_{}", word))) ending.push_back(field.path);
    if (last.starts_with(fmt::format("{}_", word))) beginning.push_back(field.path);
  }
  return ending.empty() ? beginning : ending;
}

std::optional<std::string_view> nearest_by_last_part(std::string_view path, std::span<const std::string_view> paths) {
  std::vector<std::string_view> last_parts;
  for (const std::string_view candidate : paths) last_parts.push_back(last_part(candidate));
  const auto similar = nearest(last_part(path), last_parts);
  if (!similar) return std::nullopt;
  return paths[static_cast<size_t>(std::ranges::find(last_parts, *similar) - last_parts.begin())];
}

// A key of the path's own table that is near it: "train.step" is a slip of train.steps rather than fault.step.
std::optional<std::string_view> nearest_in_table(std::string_view path) {
  const size_t dot = path.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  std::vector<std::string_view> paths;
  for (const ConfigField& field : config_fields())
    if (field.group() == path.substr(0, dot)) paths.push_back(field.path);
  return nearest_by_last_part(path, paths);
}

std::optional<std::string_view> nearest_path(std::string_view path, std::span<const std::string_view> paths) {
  if (const auto similar = nearest(path, paths)) return similar;
  return nearest_by_last_part(path, paths);
}

}  // namespace

std::optional<std::string> place_for(std::string_view key) {
  if (contains(header_keys, key)) return "above the first table of a spec";
  if (contains(retry_keys, key)) return "in [retry] of a spec";
  if (contains(run_keys, key)) return "in [[runs]] of a spec";
  if (key == "exclude" || key == "runs") return fmt::format("at the top of a spec, as [[{}]]", key);
  if (contains(section_keys, key)) return fmt::format("at the top of a spec, as [{}]", key);
  return std::nullopt;
}

std::string belongs_elsewhere(std::string_view key) {
  if (const auto place = place_for(key)) return fmt::format("; it belongs {}", *place);
  std::vector<std::string_view> keys(header_keys.begin(), header_keys.end());
  keys.insert(keys.end(), retry_keys.begin(), retry_keys.end());
  const auto similar = nearest(key, keys);
  return similar ? fmt::format("; did you mean \"{}\", which belongs {}?", *similar, *place_for(*similar)) : "";
}

std::vector<std::string_view> meant_paths(std::string_view path, std::span<const std::string_view> others) {
  if (const auto similar = nearest_in_table(path)) return {*similar};
  std::vector<std::string_view> paths(others.begin(), others.end());
  paths.insert(paths.end(), config_groups().begin(), config_groups().end());
  for (const ConfigField& field : config_fields()) paths.push_back(field.path);
  for (const std::string_view candidate : paths)
    if (last_part(candidate) == last_part(path)) return {candidate};
  if (auto by_word = paths_with_word(in_our_words(last_part(path))); !by_word.empty()) return by_word;
  const auto similar = nearest_path(path, paths);
  return similar ? std::vector{*similar} : std::vector<std::string_view>{};
}

std::string did_you_mean(std::span<const std::string_view> candidates, std::string_view prefix) {
  if (candidates.empty()) return {};
  std::vector<std::string> quoted;
  for (const std::string_view candidate : candidates) quoted.push_back(fmt::format("\"{}{}\"", prefix, candidate));
  const std::vector<std::string_view> views(quoted.begin(), quoted.end());
  return fmt::format("; did you mean {}?", one_of(views));
}

}  // namespace assay
