// `assay plan SPEC`: what enqueue would do, without doing it.
#include <fmt/core.h>

#include <map>

#include "base/text.h"
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
          {"device", r.device()},
          {"device_name", r.device_name()},
          {"fits", r.fits()},
          {"shortage", r.shortage()},
          {"estimated_seconds", r.estimated_seconds() > 0 ? assay::to_json(r.estimated_seconds()) : Json(nullptr)},
          {"already_queued", r.already_queued()},
          {"conflict", r.conflict()},
          {"problem", r.problem()}};
}

TableCell fit(const v1::PlannedRun& r) {
  if (!r.fits()) return {"no", Colour::red};
  return r.shortage().empty() ? TableCell("yes", Colour::green) : TableCell("not now", Colour::yellow);
}

TableCell remark(const v1::PlannedRun& r) {
  if (!r.problem().empty()) return {r.conflict() ? "another config" : "problem", Colour::red};
  return r.already_queued() ? "already queued" : "";
}

std::string seconds_text(double seconds) {
  return format_duration(static_cast<int64_t>(seconds * 1000));
}

Table wide_table(const v1::PlanResponse& plan) {
  Table table({{"run", Align::left, true, true},
               {"precision"},
               {"execution"},
               {"steps", Align::right},
               {"params", Align::right},
               {"device"},
               {"peak", Align::right},
               {"fits"},
               {"est. time", Align::right},
               {"remark"}});
  for (const v1::PlannedRun& r : plan.runs())
    table.add({r.name(), r.precision(), r.execution(), fmt::format("{}", r.steps()),
               format_count(static_cast<double>(r.parameters())), r.device(), format_mib(r.peak_mem_mib()), fit(r),
               r.estimated_seconds() > 0 ? seconds_text(r.estimated_seconds()) : "-", remark(r)});
  return table;
}

// Without what the names and the lines below the table say as a rule, so that the names can be told apart.
Table narrow_table(const v1::PlanResponse& plan) {
  Table table({{"run", Align::left, true, true},
               {"steps", Align::right},
               {"peak", Align::right},
               {"fits"},
               {"est. time", Align::right},
               {"remark"}});
  for (const v1::PlannedRun& r : plan.runs())
    table.add({r.name(), fmt::format("{}", r.steps()), format_mib(r.peak_mem_mib()), fit(r),
               r.estimated_seconds() > 0 ? seconds_text(r.estimated_seconds()) : "-", remark(r)});
  return table;
}

void print_table(Context& context, const v1::PlanResponse& plan) {
  const int width = context.console.width;
  Table table = wide_table(plan);
  if (width > 0 && table.natural_width() > width) table = narrow_table(plan);
  context.console.out << printable(plan.experiment()) << "\n\n" << table.text(width, context.console.colour) << "\n";
}

// What the kinds of device are, what the corpora hold, and what enqueueing would change.
void print_summary(Context& context, const v1::PlanResponse& plan) {
  std::ostream& out = context.console.out;
  std::map<std::string, std::string> devices;
  int64_t added = 0, unknown = 0;
  for (const v1::PlannedRun& r : plan.runs()) {
    if (!r.device_name().empty()) devices[r.device()] = r.device_name();
    if (r.already_queued() || !r.problem().empty()) continue;
    ++added;
    unknown += r.estimated_seconds() > 0 ? 0 : 1;
  }
  for (const auto& [kind, name] : devices) out << printable(kind) << ": " << printable(name) << "\n";
  for (const std::string& note : plan.notes()) out << printable(note) << "\n";
  for (const std::string& change : plan.updated()) out << "to update: " << printable(change) << "\n";
  out << plural(added, "run") << " to add";
  if (plan.total_seconds() > 0) out << ", about " << seconds_text(plan.total_seconds()) << " in all";
  if (unknown > 0)
    out << fmt::format(", total time unknown: no run like {} has been measured here",
                       unknown == added ? "these" : fmt::format("{} of them", unknown));
  out << "\n";
}

// Problems in full, below the table: they are sentences. The exit code is the one that enqueue would end with.
ExitCode print_problems(Context& context, const v1::PlanResponse& plan) {
  for (const std::string& error : plan.errors()) remark(context, error);
  bool problem = false, too_large = false, conflict = false;
  for (const v1::PlannedRun& r : plan.runs()) {
    if (r.problem().empty()) continue;
    (r.conflict() ? conflict : r.fits() ? problem : too_large) = true;
    if (!context.json) remark(context, r.name() + ": " + r.problem());
  }
  if (plan.errors_size() > 0 || problem) return ExitCode::invalid;
  if (too_large) return ExitCode::limits;
  return conflict ? ExitCode::refused : ExitCode::ok;
}

Result<ExitCode> run_plan(Context& context, const Options& options) {
  ASSAY_ASSIGN(const SpecFile file, read_spec_file(options.spec));
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::PlanRequest request;
  request.set_spec_text(file.text);
  request.set_spec_file(file.path);
  request.set_base_folder(file.base_folder);
  request.set_tag(options.tag);
  ASSAY_ASSIGN(const v1::PlanResponse plan, client.call(&Rpc::Plan, request));
  if (context.json) {
    Json runs = Json::array();
    for (const v1::PlannedRun& run : plan.runs()) runs.push_back(to_json(run));
    print_json(context,
               {{"experiment", plan.experiment()},
                {"runs", runs},
                {"errors", assay::to_json(plan.errors())},
                {"warnings", assay::to_json(plan.warnings())},
                {"updated", assay::to_json(plan.updated())},
                {"notes", assay::to_json(plan.notes())},
                {"total_seconds", plan.total_seconds() > 0 ? assay::to_json(plan.total_seconds()) : Json(nullptr)}});
  } else if (plan.errors_size() == 0) {
    print_table(context, plan);
    print_summary(context, plan);
    print_warnings(context, plan.warnings());
  }
  return print_problems(context, plan);
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "plan", "Show what enqueue would do: runs, devices, memory, expected time",
                            "  assay plan examples/ablation_cpu.toml\n"
                            "  assay plan sweep.toml --tag monday    # marks what is already queued there");
  auto options = std::make_shared<Options>();
  verb->add_option("SPEC", options->spec, "Spec file (TOML); - reads standard input")->required();
  add_name(verb, "--tag", options->tag, "TAG", "Compare with the experiment of this tag");
  on_chosen(verb, context, options, run_plan);
}

}  // namespace assay
