// Durations, sizes and counts as people type them: read in one place, with errors that say what is understood.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace assay {

// "90" (seconds), "90s", "5m", "2h", "1d", "1.5h" -> milliseconds.
Result<int64_t> parse_duration_ms(std::string_view text);
// "4096" (bytes), "10k", "1M", "2G", "1T", also "10KiB"; each unit is 1,024 of the one before.
Result<int64_t> parse_bytes(std::string_view text);

// Options of these kinds. What is wrong is said as "--timeout: ...".
void add_duration(CLI::App* verb, const std::string& name, int64_t& ms, const std::string& what);
void add_bytes(CLI::App* verb, const std::string& name, int64_t& bytes, const std::string& what);
// A whole number of at least `least`.
void add_count(CLI::App* verb, const std::string& name, int64_t& count, int64_t least, const std::string& what);

}  // namespace assay
