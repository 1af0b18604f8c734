#include "spec/run_config_toml.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "spec/config_reader.h"

namespace assay {
namespace {

std::string toml_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\u{:04X}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

// The shortest digits that read back the same, always recognisable as a float.
std::string toml_float(double value) {
  if (std::isnan(value)) return "nan";
  std::string text = fmt::format("{}", value);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

std::string toml_value(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return toml_string(*text);
  if (const auto* real = std::get_if<double>(&value)) return toml_float(*real);
  return plain_text(value);
}

// Where `message` names the path, as a word of its own; a path without a dot is a plain word, unless it is set to
// something.
size_t find_path(std::string_view message, std::string_view path) {
  const bool dotted = path.find('.') != std::string_view::npos;
  const std::string wanted = std::string(path) + (dotted ? "" : " = ");  // then anything, a number too
  const auto is_word = [&](size_t i) {
    return i < message.size() && (std::isalnum(static_cast<unsigned char>(message[i])) || message[i] == '_');
  };
  size_t at = message.find(wanted);
  while (at != std::string_view::npos && ((at > 0 && is_word(at - 1)) || (dotted && is_word(at + wanted.size()))))
    at = message.find(wanted, at + 1);
  return at;
}

std::string text_of(const RunConfig& config, bool labels) {
  std::string text;
  std::string_view group;
  for (const ConfigField& field : config_fields()) {
    if (field.is_label && !labels) continue;
    if (field.group() != group) {
      group = field.group();
      text += fmt::format("\n[{}]\n", group);
    }
    text += fmt::format("{} = {}\n", field.last(), toml_value(field.get(config)));
  }
  return text;
}

}  // namespace

std::string to_toml(const RunConfig& config) {
  return text_of(config, true);
}

std::string canonical_text(const RunConfig& config) {
  return text_of(config, false);
}

RunConfigResult parse_run_config(std::string_view text, std::string_view file) {
  RunConfigResult result;
  SpecErrors errors(file);
  if (const auto root = parse_toml(text, errors)) {
    ConfigReader reader(errors);
    const auto settings = reader.settings(*root, "a run config", Layer::defaults);
    std::vector<const Setting*> in_force;
    for (const Setting& s : settings) in_force.push_back(&s);
    result.config = config_of(in_force);
    for (const ConfigProblem& problem : validate(result.config))
      if (const auto place = place_of(problem, in_force, reader)) errors.add(*place, problem.message);
  }
  result.errors = errors.take();
  return result;
}

std::string place_named_in(std::string_view message, std::string_view text, std::string_view file) {
  SpecErrors errors(file);
  const auto root = parse_toml(text, errors);
  if (!root) return {};
  ConfigReader reader(errors);
  size_t first = std::string_view::npos;
  std::string place;
  for (const Setting& s : reader.settings(*root, "a run config", Layer::defaults))
    if (const size_t at = find_path(message, s.field->path); at < first) {
      first = at;
      place = fmt::format("{}:{}:{}", file, s.at.line, s.at.column);
    }
  return place;
}

}  // namespace assay
