// What stands on standard error when a command fails: of `assay` and of assay-data, which shares no more than this.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "cli/exit_code.h"

namespace assay {

// Lines for a person, each with the program's name ahead unless it begins with a place in a file ("spec.toml:3:1: "),
// and each made safe: names and paths in it may come from anywhere.
std::string remark_lines(const std::string& text);

// The message for a person, or {"error": ...} on one line for a program. Ends with a newline.
std::string error_lines(bool json, ExitCode code, const std::string& message);

// The verb of `app` that somebody who wrote `word` may have meant.
std::optional<std::string> nearest_verb(const CLI::App& app, const std::string& word);

}  // namespace assay
