// Verbs that change the state of runs say the same things in the same way.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/context.h"
#include "cli/verb.h"

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

// Asks the daemon for a change of the selected runs; `request` has what else there is to say. Each call is a request of
// its own.
template <class Request>
Result<v1::ChangeResponse> ask_change(Context& context, RpcMethod<Request, v1::ChangeResponse> method,
                                      const Selection& selection, Request request = {}) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  *request.mutable_selector() = to_selector(selection);
  request.set_request_id(new_request_id());
  return client.call(method, request);
}

// Prints what changed ("cancelled 2 runs") and what did not, with why. Nothing changed although runs were asked for is
// `refused`: a script must not take it for done.
ExitCode print_change(Context& context, const std::string& done, const v1::ChangeResponse& answer);

}  // namespace assay
