// A complete run config as TOML: what `run.toml` of an attempt holds and what a lease carries.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spec/experiment_spec.h"
#include "spec/run_config.h"

namespace assay {

// Every field, fixed order, fixed number format; equal configs give equal text.
std::string to_toml(const RunConfig&);

// What tells configs apart, for hashes and keys: the same without labels (ConfigField::is_label). The cells of what is
// queued and the checkpoints of what was trained are found again by it, so it must not change for a config of an
// earlier version: a field that is added later has to be left out while it says what was so before there was a choice.
std::string canonical_text(const RunConfig&);

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
