// `assay enqueue SPEC`: check the spec here, where its file is, and queue every run of it.
#include <fmt/core.h>

#include "base/text.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/spec_file.h"
#include "cli/verb.h"

namespace assay {
namespace {

constexpr int names_shown = 20;  // a screen's worth; --json and `ls` have them all

struct Options {
  std::string spec;
  std::string tag;
};

void print(Context& context, const v1::EnqueueResponse& answer) {
  if (context.json) {
    print_json(context, {{"experiment", answer.experiment()},
                         {"tag", answer.tag()},
                         {"added", to_json(answer.added())},
                         {"already_there", answer.already_there()},
                         {"updated", to_json(answer.updated())},
                         {"warnings", to_json(answer.warnings())}});
    return;
  }
  std::ostream& out = context.console.out;
  out << fmt::format("{}  tag {}\n", printable(answer.experiment()), printable(answer.tag()));
  out << plural(answer.added_size(), "run") << " added";
  if (answer.already_there() > 0) out << fmt::format(", {} already there", answer.already_there());
  out << "\n";
  for (int i = 0; i < std::min(answer.added_size(), names_shown); ++i)
    out << "  " << printable(answer.added(i)) << "\n";
  if (answer.added_size() > names_shown)
    out << " " << and_more(static_cast<size_t>(answer.added_size() - names_shown)) << "\n";
  for (const std::string& change : answer.updated()) out << "updated: " << printable(change) << "\n";
  print_warnings(context, answer.warnings());
}

Result<ExitCode> run_enqueue(Context& context, const Options& options) {
  ASSAY_ASSIGN(const SpecFile file, read_spec_file(options.spec));
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::EnqueueRequest request;
  request.set_spec_text(file.text);
  request.set_spec_file(file.path);
  request.set_base_folder(file.base_folder);
  request.set_tag(options.tag);
  request.set_request_id(new_request_id());
  ASSAY_ASSIGN(const v1::EnqueueResponse answer, client.call(&Rpc::Enqueue, request));
  print(context, answer);
  return ExitCode::ok;
}

}  // namespace

void add_enqueue(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "enqueue", "Queue every run of a spec file",
                            "  assay enqueue examples/ablation_cpu.toml\n"
                            "  assay enqueue sweep.toml --tag monday    # again later: adds only what is missing\n"
                            "  generate_spec | assay enqueue -");
  auto options = std::make_shared<Options>();
  verb->add_option("SPEC", options->spec, "Spec file (TOML); - reads standard input")->required();
  add_name(verb, "--tag", options->tag, "TAG", "Tag of the experiment (default: the spec's, else the time now)");
  on_chosen(verb, context, options, run_enqueue);
}

}  // namespace assay
