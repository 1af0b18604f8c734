// `assay report`: the daemon makes it from the store; this verb puts the files into a folder.
#include <fmt/core.h>

#include <filesystem>

#include "base/file.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace assay {
namespace {

struct Options {
  std::string tag;
  std::string baseline;
  std::string folder;
};

// A tag is a folder name here; the daemon checks tags, and this makes sure that no reply can leave the folder.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Result<ExitCode> run_report(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::GetReportRequest request;
  request.set_tag(options.tag);
  request.set_baseline(options.baseline);
  ASSAY_ASSIGN(const v1::GetReportResponse report, client.get_report(request));
  const std::string folder = options.folder.empty() ? "report_" + report.tag() : options.folder;
  if (options.folder.empty() && !is_plain_name(report.tag()))
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the tag '{}' is no folder name; give a folder with -o", report.tag())};
  ASSAY_TRY(make_folders(folder));
  Json written = Json::array();
  for (const v1::ReportFile& file : report.files()) {
    if (!is_plain_name(file.name()))
      return Error{ErrorCode::internal, fmt::format("the daemon sent a file named '{}'", file.name())};
    const std::string path = (std::filesystem::path(folder) / file.name()).string();
    ASSAY_TRY(write_file_atomically(path, file.content()));
    written.push_back(path);
    if (!context.json) context.console.out << printable(path) << "\n";
  }
  if (context.json)
    print_json(context, {{"experiment", report.experiment()}, {"tag", report.tag()}, {"files", written}});
  return ExitCode::ok;
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "report", "Write the report of an experiment: report.md, summary.csv, steps.csv",
                            "  assay report                           # the newest experiment, into report_<tag>/\n"
                            "  assay report --tag monday -o monday_report\n"
                            "  assay report --baseline moe_bf16_dynamic");
  auto options = std::make_shared<Options>();
  verb->add_option("--tag", options->tag, "Which experiment (default: the newest)")->type_name("TAG");
  verb->add_option("--baseline", options->baseline, "Run to compare with (default: the spec's, else the first)")
      ->type_name("RUN");
  verb->add_option("-o,--output", options->folder, "Folder to write into (default: report_<tag>)")->type_name("FOLDER");
  on_chosen(verb, context, options, run_report);
}

}  // namespace assay
