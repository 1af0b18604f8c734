// Private to spec/: config paths and their values out of TOML tables, strictly typed.
#pragma once

#include <set>
#include <vector>

#include "spec/config_fields.h"
#include "spec/spec_errors.h"
#include "spec/toml_document.h"

namespace assay {

// The parts of a spec that set values, the more specific later: a later layer overrides an earlier one.
enum class Layer { defaults, axis, run };

// A config path that a file sets, and where.
struct Setting {
  const ConfigField* field = nullptr;
  ConfigValue value;
  Position at;
  Layer layer = Layer::defaults;
};

// One config path of a table with its node, not yet read as a value.
struct ConfigLeaf {
  const ConfigField* field = nullptr;
  const toml::node* node = nullptr;
  Position key_at;
};

class ConfigReader {
 public:
  explicit ConfigReader(SpecErrors& errors) : errors_(errors) {}

  // Every config path in `table` in file order; nested tables, dotted keys and quoted dotted keys are alike.
  // `where` names the table in messages ("[defaults]"); keys in `others` are the caller's.
  std::vector<ConfigLeaf> leaves(const toml::table& table, std::string_view where,
                                 std::span<const std::string_view> others = {});
  // The same with the values read. A setting's place is its key.
  std::vector<Setting> settings(const toml::table& table, std::string_view where, Layer layer,
                                std::span<const std::string_view> others = {});
  // An integer is taken where a float is expected, nothing else is converted.
  std::optional<ConfigValue> value(const ConfigField& field, const toml::node& node);

  // True if this path, or a table on its way, could not be read: rules over it would mislead.
  bool is_unreadable(std::string_view path) const;

 private:
  void collect(const toml::table& table, const std::string& prefix, std::vector<ConfigLeaf>& found);
  void unknown_key(Position at, const std::string& path);

  SpecErrors& errors_;
  std::set<std::string, std::less<>> unreadable_;
  std::string_view where_;  // of the call in progress
  std::span<const std::string_view> others_;
};

// What the settings give, the later in force: the preset's values first, whichever layer names it, then all others.
RunConfig config_of(std::span<const Setting* const> settings);

// Where to report a problem: at the most specific setting of the paths concerned, the problem's own path before its
// related ones; line 0 if the file sets none of them. Nothing if one of them could not be read.
std::optional<Position> place_of(const ConfigProblem& problem, std::span<const Setting* const> settings,
                                 const ConfigReader& reader);

}  // namespace assay
