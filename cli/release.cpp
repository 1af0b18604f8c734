// `assay release`: the opposite of hold.
#include "cli/change.h"
#include "cli/client.h"
#include "cli/output.h"

namespace assay {
namespace {

struct Options {
  Selection selection;
};

Result<ExitCode> run_release(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::HoldRequest request;
  *request.mutable_selector() = to_selector(options.selection);
  request.set_request_id(new_request_id());
  ASSAY_ASSIGN(const v1::ChangeResponse answer, client.release(request));
  if (!options.selection.names.empty() || !options.selection.tag.empty() || context.json)
    return print_change(context, "released", answer);
  context.console.out << "the queue is released; runs held by name or tag stay held\n";
  return ExitCode::ok;
}

}  // namespace

void add_release(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "release", "Let held runs, or the held queue, start again",
                            "  assay release                  # the whole queue\n"
                            "  assay release moe_bf16_dynamic\n"
                            "  assay release --tag monday");
  auto options = std::make_shared<Options>();
  add_selection(verb, options->selection, "Runs to release");
  on_chosen(verb, context, options, run_release);
}

}  // namespace assay
