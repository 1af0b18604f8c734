// What every verb is given: the global options, the console and time. Tests replace all of it.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "cli/exit_code.h"

namespace assay {

struct Console {
  std::ostream& out;      // results
  std::ostream& err;      // errors and remarks
  bool terminal = false;  // out is a terminal
  bool colour = false;    // terminal, and NO_COLOR is not set
  int width = 0;          // columns; 0 = unlimited (not a terminal)
};

struct Context {
  Console console;
  const Clock& clock;
  std::function<void(int64_t ms)> pause;  // sleep; a test moves its manual clock or its fake daemon instead
  // Becomes the program (execv); returns only when that failed, saying why.
  std::function<Error(const std::string& program, const std::vector<std::string>& arguments)> become;
  std::string programs;                // folder of assayd and its siblings
  std::vector<std::string> arguments;  // the whole command line without the program's name
  std::string home;                    // --home, resolved before a verb runs
  bool json = false;                   // --json
  // What the chosen verb does; set while the command line is parsed, called after it parsed without error.
  std::function<Result<ExitCode>()> action;
};

}  // namespace assay
