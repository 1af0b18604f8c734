// Verbs that change the state of runs say the same things in the same way.
#pragma once

#include <string>
#include <vector>

#include "cli/context.h"
#include "cli/verb.h"
#include "proto/queue.pb.h"

namespace assay {

// How a run is named, for help texts.
inline constexpr const char* run_name_help =
    "\"name\" (newest experiment that has it), \"tag/name\" or \"experiment/tag/name\"";
// --tag
void add_tag(CLI::App* verb, std::string& tag, const std::string& what);

struct Selection {
  std::vector<std::string> names;
  std::string tag;
};
// RUN… and --tag.
void add_selection(CLI::App* verb, Selection& selection, const std::string& what);
v1::RunSelector to_selector(const Selection& selection);

// Prints what changed ("cancelled 2 runs") and what did not, with why. Nothing changed although runs were asked for is
// `refused`: a script must not take it for done.
ExitCode print_change(Context& context, const std::string& done, const v1::ChangeResponse& answer);

}  // namespace assay
