// How the programs beside `assay` read their command line: the same answers to --help, --version and mistakes. Included
// by their main files alone, which link CLI11.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include "base/output_file.h"
#include "base/version.h"

namespace assay {

// Nothing = the arguments are read and the program goes on; else its exit status: what was asked for has been printed,
// or standard error has the line "program: what is wrong; see `program --help`" and the status is `usage_status`.
inline std::optional<int> read_arguments(CLI::App& app, int argc, const char* const* argv, int usage_status) {
  const std::string program = app.get_name();
  app.set_version_flag("-V,--version", program + " " + version());
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {
    app.exit(asked, std::cout, std::cerr);
    return checked_exit(program, 0);
  } catch (const CLI::ParseError& error) {
    std::cerr << program << ": " << error.what() << "; see `" << program << " --help`\n";
    return usage_status;
  }
  return std::nullopt;
}

}  // namespace assay
