// `assay report`: the daemon makes it from the store; this verb puts the files into a folder.
#include <fmt/core.h>

#include <filesystem>

#include "base/file.h"
#include "base/output_file.h"
#include "cli/change.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/step_export.h"
#include "cli/verb.h"

namespace assay {
namespace {

struct Options {
  std::string tag;
  std::string baseline;
  std::string folder;
};

// Names are folder and file names here; the daemon checks them, and this makes sure that no reply can leave the folder.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

std::string path_in(const std::string& folder, const std::string& name) {
  return (std::filesystem::path(folder) / name).string();
}

// The paths written. The daemon leaves steps.csv out where it would not fit into a message; it is then made here.
Result<std::vector<std::string>> write_files(Context& context, Client& client, const v1::GetReportResponse& report,
                                             const std::string& folder) {
  ASSAY_TRY(make_folders(folder));
  std::vector<std::string> written;
  bool has_steps = false;
  for (const v1::ReportFile& file : report.files()) {
    if (!is_plain_name(file.name()))
      return Error{ErrorCode::internal, fmt::format("the daemon sent a file named '{}'", file.name())};
    ASSAY_TRY(write_output_file(path_in(folder, file.name()), file.content()));
    written.push_back(path_in(folder, file.name()));
    has_steps = has_steps || file.name() == "steps.csv";
  }
  if (has_steps) return written;
  ASSAY_ASSIGN(const std::unique_ptr<OutputFile> steps, OutputFile::open(path_in(folder, "steps.csv")));
  ASSAY_TRY(write_steps_csv(context, client, report.experiment() + "/" + report.tag(), steps->stream()));
  ASSAY_TRY(steps->commit());
  written.push_back(path_in(folder, "steps.csv"));
  return written;
}

// report_<tag>, or report_<experiment>/<tag> where another experiment has the same tag: neither report takes the place
// of the other.
Result<std::string> folder_for(const v1::GetReportResponse& report, const Options& options) {
  if (!options.folder.empty()) return options.folder;
  if (!is_plain_name(report.tag()) || (report.tag_shared() && !is_plain_name(report.experiment())))
    return Error{ErrorCode::invalid_argument,
                 fmt::format("'{}/{}' is no folder name; give a folder with -o", report.experiment(), report.tag())};
  return "report_" + (report.tag_shared() ? report.experiment() + "/" + report.tag() : report.tag());
}

Result<ExitCode> run_report(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::GetReportRequest request;
  request.set_tag(options.tag);
  request.set_baseline(options.baseline);
  ASSAY_ASSIGN(const v1::GetReportResponse report, client.call(&Rpc::GetReport, request));
  ASSAY_ASSIGN(const std::string folder, folder_for(report, options));
  ASSAY_ASSIGN(const std::vector<std::string> written, write_files(context, client, report, folder));
  if (context.json)
    print_json(context, {{"experiment", report.experiment()}, {"tag", report.tag()}, {"files", written}});
  else
    for (const std::string& path : written) context.console.out << printable(path) << "\n";
  return ExitCode::ok;
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "report", "Write the report of an experiment: report.md, summary.csv, steps.csv",
                            "  assay report                           # the newest experiment, into report_<tag>/\n"
                            "  assay report --tag monday -o monday_report\n"
                            "  assay report --baseline moe_bf16_dynamic");
  auto options = std::make_shared<Options>();
  add_tag(verb, options->tag, "Which experiment (default: the newest)");
  add_name(verb, "--baseline", options->baseline, "RUN", "Run to compare with (default: the spec's, else the first)");
  add_name(verb, "-o,--output", options->folder, "FOLDER",
           "Folder to write into (default: report_<tag>; report_<experiment>/<tag> where several share the tag)");
  on_chosen(verb, context, options, run_report);
}

}  // namespace assay
