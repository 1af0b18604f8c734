// `assay cancel`: runs that wait are cancelled at once, runs that go on are stopped.
#include "cli/change.h"

namespace assay {
namespace {

struct Options {
  Selection selection;
  bool all = false;
};

Result<ExitCode> run_cancel(Context& context, const Options& options) {
  v1::CancelRequest request;
  request.set_all(options.all);
  ASSAY_ASSIGN(const v1::ChangeResponse answer, ask_change(context, &Rpc::Cancel, options.selection, request));
  return print_change(context, "cancelled", answer);
}

}  // namespace

void add_cancel(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "cancel", "Cancel runs: waiting ones at once, running ones are stopped",
                            "  assay cancel moe_fp8_experts_dynamic_long\n"
                            "  assay cancel --tag monday\n"
                            "  assay cancel --all");
  auto options = std::make_shared<Options>();
  add_selection(verb, options->selection, "Runs to cancel");
  verb->add_flag("--all", options->all, "Every run that has not ended");
  verb->parse_complete_callback([options] {
    if (!options->all && options->selection.names.empty() && options->selection.tag.empty())
      throw CLI::ValidationError("needs run names, --tag for a whole experiment, or --all for the whole queue");
  });
  on_chosen(verb, context, options, run_cancel);
}

}  // namespace assay
