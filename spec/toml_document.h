// Private to spec/: the TOML library behind a small door. Only .cpp files of this folder include it.
#pragma once

#include <toml++/toml.h>

#include <optional>
#include <string_view>
#include <vector>

#include "spec/spec_errors.h"

namespace assay {

// The root table, or nothing and one error (the library stops at the first mistake of syntax).
std::optional<toml::table> parse_toml(std::string_view text, SpecErrors& errors);

Position position_of(const toml::source_region& source);
inline Position position_of(const toml::node& node) {
  return position_of(node.source());
}
inline Position position_of(const toml::key& key) {
  return position_of(key.source());
}

struct TomlEntry {
  const toml::key* key;
  const toml::node* node;
};
// The entries in the order of the file (the library keeps them sorted by name).
std::vector<TomlEntry> entries_of(const toml::table& table);

// "a float": for messages.
std::string_view kind_of(const toml::node& node);

}  // namespace assay
