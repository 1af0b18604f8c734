// Every settable value of a RunConfig, once: reading, writing, axes, excludes and messages all walk this table, so a
// new field of run_config.h needs one new line in config_fields.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "spec/run_config.h"

namespace assay {

using ConfigValue = std::variant<bool, int64_t, double, std::string>;

enum class ValueKind { boolean, integer, real, text, choice };

struct ConfigField {
  std::string_view path;  // "train.matrix_lr"
  ValueKind kind = ValueKind::text;
  std::span<const std::string_view> choices;  // kind choice: the legal values
  bool is_label = false;         // where values come from and no value itself: no part of what tells configs apart
  int64_t smallest = INT64_MIN;  // kind integer: what the C++ type holds; validate() knows the legal range
  int64_t largest = INT64_MAX;
  ConfigValue (*get)(const RunConfig&) = nullptr;         // a choice comes as its name
  void (*set)(RunConfig&, const ConfigValue&) = nullptr;  // the alternative must be that of `kind`

  std::string_view group() const;  // "train"; empty at the top
  std::string_view last() const;   // "matrix_lr"
};

// In the order of to_toml: the top values first, then group by group.
std::span<const ConfigField> config_fields();
const ConfigField* find_field(std::string_view path);
// "model", "train", ...: the tables of a config, in the order of config_fields().
std::span<const std::string_view> config_groups();

// "0.02", "fp8_experts", "true": as in messages and run names. Numbers are the shortest text that reads back the same.
std::string plain_text(const ConfigValue& value);

}  // namespace assay
