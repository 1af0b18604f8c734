// `assay retry`: a new attempt for runs that failed or were cancelled. The old attempts stay.
#include "cli/change.h"

namespace assay {
namespace {

struct Options {
  Selection selection;
  bool failed = false;
};

Result<ExitCode> run_retry(Context& context, const Options& options) {
  v1::RetryRequest request;
  request.set_failed(options.failed);
  ASSAY_ASSIGN(const v1::ChangeResponse answer, ask_change(context, &Rpc::Retry, options.selection, request));
  return print_change(context, "queued again", answer);
}

}  // namespace

void add_retry(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "retry", "Give failed or cancelled runs another attempt",
                            "  assay retry moe_fp8_experts_static\n"
                            "  assay retry --failed\n"
                            "  assay retry --failed --tag 20260224_162523");
  auto options = std::make_shared<Options>();
  add_selection(verb, options->selection, "Failed or cancelled runs");
  verb->add_flag("--failed", options->failed, "Every failed run");
  verb->parse_complete_callback([options] {
    if (!options->failed && options->selection.names.empty())
      throw CLI::ValidationError("needs run names, or --failed for every failed run");
  });
  on_chosen(verb, context, options, run_retry);
}

}  // namespace assay
