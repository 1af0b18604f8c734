// The whole command line as a function: what main() calls and what tests call.
#pragma once

#include <string>
#include <vector>

#include "cli/context.h"

namespace assay {

// `arguments` without the program's name. Writes to the context's console only.
ExitCode run_program(const std::vector<std::string>& arguments, Context& context);

}  // namespace assay
