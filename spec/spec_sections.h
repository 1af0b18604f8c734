// Private to spec/: a spec file read section by section, types checked, nothing expanded yet.
#pragma once

#include <string>
#include <vector>

#include "spec/config_reader.h"
#include "spec/experiment_spec.h"

namespace assay {

// The keys above the first table, and [retry].
struct SpecHeader {
  std::string experiment;
  std::string tag;
  std::string baseline;
  Position baseline_at;
  int repeats = 1;
  int priority = 0;
  OnFailure on_failure = OnFailure::continue_;
  RetryPolicy retry;
};

struct Axis {
  const ConfigField* field = nullptr;
  std::vector<Setting> values;  // at least one; a value's place is its own, not the key's
};

struct Exclude {
  std::vector<Setting> values;
  Position at;
};

struct ExplicitRun {
  bool named = false;  // else its name is derived
  std::string name;
  std::vector<Setting> settings;
  Position at;
};

struct SpecSections {
  SpecHeader header;
  std::vector<Setting> defaults;
  bool has_matrix = false;
  Position matrix_at;
  std::vector<Axis> axes;  // in file order
  std::vector<Exclude> excludes;
  std::vector<ExplicitRun> runs;
};

SpecSections read_sections(const toml::table& root, ConfigReader& reader, SpecErrors& errors);

// One key of the header, or [retry]; false if `key` is not one of them (spec_header.cpp).
bool read_header_key(std::string_view key, const toml::node& node, SpecHeader& header, SpecErrors& errors);

}  // namespace assay
