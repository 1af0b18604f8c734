#include "spec/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/utf8.h"
#include "spec/spec_keys.h"

namespace assay {
namespace {

bool is_group(std::string_view path) {
  return std::ranges::find(config_groups(), path) != config_groups().end();
}

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);
}

// The keys that a table of this path may have.
std::vector<std::string_view> keys_in(std::string_view group, std::span<const std::string_view> others) {
  std::vector<std::string_view> keys;
  if (group.empty()) keys.assign(others.begin(), others.end());
  for (const ConfigField& field : config_fields())
    if (field.group() == group) keys.push_back(field.last());
  if (group.empty()) keys.insert(keys.end(), config_groups().begin(), config_groups().end());
  return keys;
}

// What validate() expects of a field, "; expected 1 to 256", found by giving it the nearest value that the field holds.
std::string expectation(const ConfigField& field, int64_t value) {
  RunConfig config;
  field.set(config, std::clamp(value, field.smallest, field.largest));
  for (const ConfigProblem& problem : validate(config))
    if (problem.path == field.path)
      return problem.message.substr(std::min(problem.message.size(), problem.message.find(';')));
  return fmt::format("; expected {} to {}", field.smallest, field.largest);
}

}  // namespace

std::vector<ConfigLeaf> ConfigReader::leaves(const toml::table& table, std::string_view where,
                                             std::span<const std::string_view> others) {
  where_ = where;
  others_ = others;
  std::vector<ConfigLeaf> found;
  collect(table, "", found);
  std::ranges::stable_sort(found, {}, &ConfigLeaf::key_at);
  std::map<const ConfigField*, Position> first;  // "a.b" = 1 beside a.b = 2 is legal TOML
  std::erase_if(found, [&](const ConfigLeaf& leaf) {
    const auto [it, is_first] = first.emplace(leaf.field, leaf.key_at);
    if (!is_first)
      errors_.add(leaf.key_at, fmt::format("{} is set twice in {}; expected it once, as on line {}", leaf.field->path,
                                           where, it->second.line));
    return !is_first;
  });
  return found;
}

void ConfigReader::collect(const toml::table& table, const std::string& prefix, std::vector<ConfigLeaf>& found) {
  for (const auto& [key, node] : entries_of(table)) {
    const std::string path = prefix + std::string(key->str());
    const bool of_caller = prefix.empty() && std::ranges::find(others_, path) != others_.end();
    if (of_caller) continue;
    if (const ConfigField* field = find_field(path)) {
      found.push_back({field, node, position_of(*key)});
    } else if (!is_group(path)) {
      unknown_key(position_of(*key), path);
    } else if (const toml::table* group = node->as_table()) {
      collect(*group, path + ".", found);
    } else {
      unreadable_.insert(path);
      errors_.add(position_of(*node), fmt::format("{} is {}; expected a table", path, kind_of(*node)));
    }
  }
}

void ConfigReader::unknown_key(Position at, const std::string& path) {
  const auto unknown = [&](std::string_view advice) {
    errors_.add(at, fmt::format("unknown key {} in {}{}", in_quotes(path), where_, advice));
  };
  if (place_for(last_part(path))) return unknown(belongs_elsewhere(last_part(path)));
  if (const auto meant = meant_paths(path, others_); !meant.empty()) {
    unreadable_.insert(meant.begin(), meant.end());
    return unknown(did_you_mean(meant));
  }
  if (const std::string advice = belongs_elsewhere(last_part(path)); !advice.empty()) return unknown(advice);
  const std::string_view parent = std::string_view(path).substr(0, path.size() - last_part(path).size());
  const std::string_view group = parent.substr(0, parent.empty() ? 0 : parent.size() - 1);
  const auto keys = keys_in(is_group(group) ? group : "", others_);
  unknown("; expected " + one_of(keys));
}

std::vector<Setting> ConfigReader::settings(const toml::table& table, std::string_view where, Layer layer,
                                            std::span<const std::string_view> others) {
  std::vector<Setting> read;
  for (const ConfigLeaf& leaf : leaves(table, where, others))
    if (auto v = value(*leaf.field, *leaf.node)) read.push_back({leaf.field, *std::move(v), leaf.key_at, layer});
  return read;
}

std::optional<ConfigValue> ConfigReader::value(const ConfigField& field, const toml::node& node) {
  const auto refuse = [&](std::string message) {
    unreadable_.emplace(field.path);
    errors_.add(position_of(node), std::move(message));
    return std::nullopt;
  };
  const auto wrong_kind = [&](std::string_view expected) {
    return refuse(fmt::format("{} is {}; expected {}", field.path, kind_of(node), expected));
  };
  switch (field.kind) {
    case ValueKind::boolean:
      if (!node.is_boolean()) return wrong_kind("true or false");
      return node.as_boolean()->get();
    case ValueKind::real:
      if (node.is_integer()) return static_cast<double>(node.as_integer()->get());
      if (!node.is_floating_point()) return wrong_kind("a number");
      return node.as_floating_point()->get();
    case ValueKind::integer: {
      if (!node.is_integer()) return wrong_kind("an integer");
      const int64_t v = node.as_integer()->get();
      if (v < field.smallest || v > field.largest)
        return refuse(fmt::format("{} = {} is out of range{}", field.path, v, expectation(field, v)));
      return v;
    }
    case ValueKind::text:
      if (!node.is_string()) return wrong_kind("a string");
      return node.as_string()->get();
    case ValueKind::choice: {
      if (!node.is_string()) return wrong_kind("one of " + one_of(field.choices));
      const std::string& text = node.as_string()->get();
      if (std::ranges::find(field.choices, text) != field.choices.end()) return text;
      return refuse(fmt::format("{} = {} is not known; expected {}{}", field.path, in_quotes(text),
                                one_of(field.choices), did_you_mean(nearest(text, field.choices))));
    }
  }
  return std::nullopt;
}

bool ConfigReader::is_unreadable(std::string_view path) const {
  const size_t dot = path.rfind('.');
  return unreadable_.contains(path) || (dot != std::string_view::npos && unreadable_.contains(path.substr(0, dot)));
}

RunConfig config_of(std::span<const Setting* const> settings) {
  RunConfig named;
  for (const Setting* setting : settings)
    if (setting->field->path == "preset") setting->field->set(named, setting->value);
  RunConfig config = preset_config(named.preset);
  for (const Setting* setting : settings) setting->field->set(config, setting->value);
  return config;
}

std::optional<Position> place_of(const ConfigProblem& problem, std::span<const Setting* const> settings,
                                 const ConfigReader& reader) {
  std::vector<std::string_view> paths = {problem.path};
  paths.insert(paths.end(), problem.related.begin(), problem.related.end());
  if (std::ranges::any_of(paths, [&](std::string_view path) { return reader.is_unreadable(path); }))
    return std::nullopt;
  const Setting* best = nullptr;
  for (const std::string_view path : paths) {
    // The last setting of a path is the one in force.
    const auto set =
        std::ranges::find(settings.rbegin(), settings.rend(), path, [](const Setting* s) { return s->field->path; });
    if (set != settings.rend() && (best == nullptr || (*set)->layer > best->layer)) best = *set;
  }
  return best == nullptr ? Position{} : best->at;
}

}  // namespace assay
