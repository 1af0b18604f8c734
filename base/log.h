// Program logs (not a run's log file). spdlog stays in log.cpp: its headers cost seconds of compile time per file.
#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "base/status.h"

namespace assay::log {

enum class Level { debug, info, warn, error };

// Every program's first act; what is logged before goes to stdout. With an empty path lines go to stderr, otherwise to
// `path` (appended). An error names the path, and lines go to stderr.
Status start(std::string_view program, const std::string& path = {});
// A line that cannot be written (disk full, nobody reads the pipe) is lost, and nothing else is: it never throws.
void write(Level level, std::string_view text);
// A warning about what comes again with every message: each text is written once in the life of the program.
void warn_once(const std::string& text);
// The same promise for a program's own output. fmt::print throws, which would end the program over a line of text.
void print_line(std::FILE* out, std::string_view text);
// Why the program ends at once: "program: text" on stderr, where a person or `assay up` reads it, and a line of the log
// where that is another file.
void fatal(std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace assay::log
