// The `assay` command line: wires the console, the clock and the program folder; everything else is in cli/program.cpp.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <clocale>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <thread>

#include "base/output_file.h"
#include "base/process.h"
#include "cli/program.h"

namespace {

int terminal_width() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

assay::Error become(const std::string& program, const std::vector<std::string>& arguments) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};  // execv does not change them
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  const std::string why = std::strerror(errno);
  return {assay::ErrorCode::not_found, "cannot start " + program + ": " + why + "; install it beside assay"};
}

}  // namespace

int main(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "C.UTF-8");  // wcwidth(): how wide characters are, whatever the user's language
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  const char* no_colour = std::getenv("NO_COLOR");  // no-color.org: set and not empty means no colour
  const assay::SystemClock clock;
  assay::FdStream out(STDOUT_FILENO);
  std::cerr.tie(&out);  // what was printed before an error appears before it
  assay::Context context{
      .console = {.out = out,
                  .err = std::cerr,
                  .terminal = terminal,
                  .colour = terminal && (no_colour == nullptr || *no_colour == '\0'),
                  .width = terminal ? terminal_width() : 0},
      .clock = clock,
      .pause = [](int64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); },
      .become = become,
      .programs = assay::program_folder(),
  };
  const assay::ExitCode code = assay::run_program({argv + 1, argv + argc}, context);
  std::cerr.tie(nullptr);  // it outlives `out`
  return static_cast<int>(code);
}
