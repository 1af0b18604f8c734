// `assay export`: steps as CSV or JSONL, or runs as JSON, to a file or standard output.
#include "base/csv.h"
#include "base/output_file.h"
#include "cli/change.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/step_export.h"
#include "cli/units.h"
#include "cli/verb.h"
#include "spec/step_text.h"

namespace assay {
namespace {

struct Options {
  std::vector<std::string> names;
  std::string tag;
  std::string format = "csv";
  std::string path;
  int64_t attempt = 0;
};

void write_jsonl(std::ostream& out, const v1::Run& run, int64_t attempt, const StepMetrics& m) {
  Json line = {{"experiment", run.experiment()}, {"tag", run.tag()}, {"run", run.name()}, {"attempt", attempt}};
  line.update(to_json(m));
  out << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
}

Status export_all(Context& context, Client& client, const v1::ListRunsResponse& list, const Options& options,
                  std::ostream& out) {
  if (options.format == "json") {
    Json runs = Json::array();
    for (const v1::Run& listed : list.runs()) {
      v1::GetRunRequest request;
      request.set_name(full_name(listed));
      ASSAY_ASSIGN(const v1::Run run, client.call(&Rpc::GetRun, request));
      runs.push_back(to_json(run));
    }
    out << runs.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
    return {};
  }
  if (options.format == "csv") out << "experiment,tag," << steps_csv_header();
  StepPages pages(context, client);
  for (const v1::Run& run : list.runs()) {
    if (!run.has_latest()) {
      if (!options.names.empty()) remark(context, run.name() + " has not been started yet: it has no steps");
      continue;
    }
    ASSAY_TRY(pages.each(run, options.attempt, [&](int64_t attempt, const StepMetrics& m) {
      if (options.format == "csv") {
        std::string line = csv_field(run.experiment()) + ',' + csv_field(run.tag()) + ',';
        append_steps_csv(line, run.name(), attempt, m);
        out << line;
      } else {
        write_jsonl(out, run, attempt, m);
      }
    }));
  }
  return {};
}

Result<ExitCode> run_export(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::ListRunsRequest request;
  for (const std::string& name : options.names) request.mutable_selector()->add_names(name);
  request.mutable_selector()->set_tag(options.tag);
  ASSAY_ASSIGN(const v1::ListRunsResponse list, client.list_runs(request));
  if (options.path.empty() || options.path == "-" || is_standard_output(options.path)) {
    ASSAY_TRY(export_all(context, client, list, options, context.console.out));
    return ExitCode::ok;
  }
  ASSAY_ASSIGN(const std::unique_ptr<OutputFile> file, OutputFile::open(options.path));
  ASSAY_TRY(export_all(context, client, list, options, file->stream()));
  ASSAY_TRY(file->commit());
  if (context.json)
    print_json(context, {{"file", options.path}, {"runs", list.runs_size()}});
  else
    context.console.out << printable(options.path) << "\n";
  return ExitCode::ok;
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "export", "Write steps as CSV or JSONL, or runs as JSON",
                            "  assay export --tag monday -o steps.csv\n"
                            "  assay export moe_bf16_dynamic --format jsonl | head -3\n"
                            "  assay export --format json | jq '.[].state'");
  auto options = std::make_shared<Options>();
  verb->add_option("RUN", options->names, std::string("Runs to export (default: all): ") + run_name_help);
  add_tag(verb, options->tag, "Only this experiment");
  verb->add_option("--format", options->format,
                   "csv or jsonl: one line a step; json: the runs with their attempts and configs")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"csv", "jsonl", "json"}))
      ->capture_default_str();
  add_count(verb, "--attempt", options->attempt, 1, "Which attempt, from 1 (default: the newest that has steps)");
  add_name(verb, "-o,--output", options->path, "FILE", "File to write (default, and -: standard output)");
  on_chosen(verb, context, options, run_export);
}

}  // namespace assay
