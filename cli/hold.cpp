// `assay hold` and `assay release`: keep runs, or the whole queue, from starting, and let them start again.
#include "cli/change.h"
#include "cli/output.h"

namespace assay {
namespace {

struct Options {
  Selection selection;
};

// `queue` is said when the whole queue was meant.
Result<ExitCode> change(Context& context, const Selection& selection,
                        RpcMethod<v1::HoldRequest, v1::ChangeResponse> method, const char* done, const char* queue) {
  ASSAY_ASSIGN(const v1::ChangeResponse answer, ask_change(context, method, selection));
  if (!selection.names.empty() || !selection.tag.empty()) return print_change(context, done, answer);
  if (context.json)
    print_change(context, done, answer);
  else
    context.console.out << queue << "\n";
  return ExitCode::ok;  // the queue is as it was asked to be, changed or not
}

Result<ExitCode> run_hold(Context& context, const Options& options) {
  return change(context, options.selection, &Rpc::Hold, "held",
                "the queue is held: nothing new starts before `assay release`; what runs goes on");
}
Result<ExitCode> run_release(Context& context, const Options& options) {
  return change(context, options.selection, &Rpc::Release, "released",
                "the queue is released; runs held by name or tag stay held");
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
