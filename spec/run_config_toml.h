// A complete run config as TOML: what `run.toml` of an attempt holds, what a lease carries, what is hashed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spec/experiment_spec.h"
#include "spec/run_config.h"

namespace assay {

// Canonical text: every field, fixed order, fixed number format; equal configs give equal text.
std::string to_toml(const RunConfig&);

struct RunConfigResult {
  RunConfig config;
  std::vector<SpecError> errors;
};
// Reads run.toml (anything left out has its default), with the same errors as a spec file, and validates it.
RunConfigResult parse_run_config(std::string_view text, std::string_view file);

// "run.toml:3:41", where `text` sets the first config path that a message of the engine names ("set model.vocab_size to
// at least 1024", "backend = ..."). Empty if it names none that is set there.
std::string place_named_in(std::string_view message, std::string_view text, std::string_view file);

}  // namespace assay
