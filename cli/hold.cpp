// `assay hold`: keep runs, or the whole queue, from starting. What runs goes on.
#include "cli/change.h"
#include "cli/client.h"
#include "cli/output.h"

namespace assay {
namespace {

struct Options {
  Selection selection;
};

Result<ExitCode> run_hold(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::HoldRequest request;
  *request.mutable_selector() = to_selector(options.selection);
  request.set_request_id(new_request_id());
  ASSAY_ASSIGN(const v1::ChangeResponse answer, client.hold(request));
  if (!options.selection.names.empty() || !options.selection.tag.empty() || context.json)
    return print_change(context, "held", answer);
  context.console.out << "the queue is held: nothing new starts before `assay release`; what runs goes on\n";
  return ExitCode::ok;
}

}  // namespace

void add_hold(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "hold", "Keep waiting runs, or the whole queue, from starting",
                            "  assay hold                     # the whole queue; running runs go on\n"
                            "  assay hold moe_bf16_dynamic\n"
                            "  assay hold --tag monday");
  auto options = std::make_shared<Options>();
  add_selection(verb, options->selection, "Runs to hold");
  on_chosen(verb, context, options, run_hold);
}

}  // namespace assay
