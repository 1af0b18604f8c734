// `assay plan SPEC`: what enqueue would do, without doing it.
#include <fmt/core.h>

#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/spec_file.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace assay {
namespace {

struct Options {
  std::string spec;
  std::string tag;
};

Json to_json(const v1::PlannedRun& r) {
  return {{"name", r.name()},
          {"cell_key", r.cell_key()},
          {"repeat", r.repeat()},
          {"precision", r.precision()},
          {"execution", r.execution()},
          {"steps", r.steps()},
          {"total_batch_tokens", r.total_batch_tokens()},
          {"devices", r.devices()},
          {"parameters", r.parameters()},
          {"mflop_per_token", assay::to_json(r.mflop_per_token())},
          {"peak_mem_mib", assay::to_json(r.peak_mem_mib())},
          {"fits", r.fits()},
          {"estimated_seconds", r.estimated_seconds() > 0 ? assay::to_json(r.estimated_seconds()) : Json(nullptr)},
          {"already_queued", r.already_queued()},
          {"problem", r.problem()}};
}

void print_table(Context& context, const v1::PlanResponse& plan) {
  Table table({{"run", Align::left, true},
               {"precision"},
               {"execution"},
               {"steps", Align::right},
               {"params", Align::right},
               {"peak", Align::right},
               {"fits"},
               {"est. time", Align::right},
               {"remark"}});
  double seconds = 0;
  bool estimated = true;
  int64_t fresh = 0;
  for (const v1::PlannedRun& r : plan.runs()) {
    const bool known = r.estimated_seconds() > 0;
    if (!r.already_queued() && r.problem().empty()) {
      ++fresh;
      seconds += r.estimated_seconds();
      estimated = estimated && known;
    }
    table.add({r.name(), r.precision(), r.execution(), fmt::format("{}", r.steps()),
               format_count(static_cast<double>(r.parameters())), format_mib(r.peak_mem_mib()),
               r.fits() ? TableCell("yes", Colour::green) : TableCell("no", Colour::red),
               known ? format_duration(static_cast<int64_t>(r.estimated_seconds() * 1000)) : "-",
               !r.problem().empty() ? TableCell("problem", Colour::red)
                                    : TableCell(r.already_queued() ? "already queued" : "")});
  }
  std::ostream& out = context.console.out;
  out << printable(plan.experiment()) << "\n\n" << table.text(context.console.width, context.console.colour) << "\n";
  out << plural(fresh, "run") << " to add";
  if (fresh > 0 && estimated)
    out << ", about " << format_duration(static_cast<int64_t>(seconds * 1000)) << " one after another";
  out << "\n";
}

// Problems in full, below the table: they are sentences.
ExitCode print_problems(Context& context, const v1::PlanResponse& plan) {
  for (const std::string& error : plan.errors()) remark(context, error);
  bool too_large = false;
  bool problem = false;
  for (const v1::PlannedRun& r : plan.runs()) {
    too_large = too_large || !r.fits();
    if (r.problem().empty()) continue;
    problem = true;
    if (!context.json) remark(context, r.name() + ": " + r.problem());
  }
  if (plan.errors_size() > 0) return ExitCode::invalid;
  if (too_large) return ExitCode::limits;
  return problem ? ExitCode::invalid : ExitCode::ok;
}

Result<ExitCode> run_plan(Context& context, const Options& options) {
  ASSAY_ASSIGN(const SpecFile file, read_spec_file(options.spec));
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::PlanRequest request;
  request.set_spec_text(file.text);
  request.set_spec_file(file.path);
  request.set_base_folder(file.base_folder);
  request.set_tag(options.tag);
  ASSAY_ASSIGN(const v1::PlanResponse plan, client.plan(request));
  if (context.json) {
    Json runs = Json::array();
    for (const v1::PlannedRun& run : plan.runs()) runs.push_back(to_json(run));
    Json errors = Json::array();
    for (const std::string& error : plan.errors()) errors.push_back(error);
    print_json(context, {{"experiment", plan.experiment()}, {"runs", runs}, {"errors", errors}});
  } else if (plan.errors_size() == 0) {
    print_table(context, plan);
  }
  return print_problems(context, plan);
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "plan", "Show what enqueue would add: cells, memory, fit, expected time",
                            "  assay plan examples/ablation_cpu.toml\n"
                            "  assay plan sweep.toml --tag monday    # marks what is already queued there");
  auto options = std::make_shared<Options>();
  verb->add_option("SPEC", options->spec, "Spec file (TOML); - reads standard input")->required();
  verb->add_option("--tag", options->tag, "Compare with the experiment of this tag")->type_name("TAG");
  on_chosen(verb, context, options, run_plan);
}

}  // namespace assay
