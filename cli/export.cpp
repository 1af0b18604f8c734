// `assay export`: steps as CSV or JSONL, or runs as JSON, to a file or standard output.
#include <fmt/core.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "base/csv.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace assay {
namespace {

struct Options {
  std::vector<std::string> names;
  std::string tag;
  std::string format = "csv";
  std::string path;
  int64_t attempt = 0;
};

constexpr const char* csv_header =
    "run,attempt,step,loss,dt_ms,tok_per_sec,mfu,lr_scale,grad_norm,expert_load_min,expert_load_max,peak_mem_mib,val_"
    "loss";

void write_csv(std::ostream& out, const v1::Run& run, int64_t attempt, const v1::StepMetrics& m) {
  out << csv_field(run.name()) << ',' << attempt << ',' << m.step();
  for (double value : {m.loss(), m.dt_ms(), m.tok_per_sec(), m.mfu(), m.lr_scale(), m.grad_norm(), m.expert_load_min(),
                       m.expert_load_max(), m.peak_mem_mib()})
    out << ',' << csv_number(value);
  out << ',' << (std::isnan(m.val_loss()) ? "" : csv_number(m.val_loss())) << "\n";
}

void write_jsonl(std::ostream& out, const v1::Run& run, int64_t attempt, const v1::StepMetrics& m) {
  Json line = {{"experiment", run.experiment()}, {"tag", run.tag()}, {"run", run.name()}, {"attempt", attempt}};
  line.update(to_json(m));
  out << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
}

// Every step of the run, page by page, so that a million steps need one page of memory.
Status export_steps(Client& client, const v1::Run& run, const Options& options, std::ostream& out) {
  v1::QueryMetricsRequest request;
  request.set_name(run.tag() + "/" + run.name());
  request.set_attempt(options.attempt);
  while (true) {
    ASSAY_ASSIGN(const v1::QueryMetricsResponse page, client.query_metrics(request));
    for (const v1::StepMetrics& m : page.steps())
      options.format == "csv" ? write_csv(out, run, page.attempt(), m) : write_jsonl(out, run, page.attempt(), m);
    if (!page.more() || page.steps_size() == 0) return {};
    request.set_from_step(page.steps(page.steps_size() - 1).step() + 1);
    request.set_attempt(page.attempt());  // a retry that starts meanwhile must not mix its steps in
  }
}

Status export_all(Client& client, const v1::ListRunsResponse& list, const Options& options, std::ostream& out) {
  if (options.format == "json") {
    Json runs = Json::array();
    for (const v1::Run& listed : list.runs()) {
      v1::GetRunRequest request;
      request.set_name(listed.tag() + "/" + listed.name());
      ASSAY_ASSIGN(const v1::Run run, client.get_run(request));
      runs.push_back(to_json(run));
    }
    out << runs.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
    return {};
  }
  if (options.format == "csv") out << csv_header << "\n";
  for (const v1::Run& run : list.runs()) {
    if (!run.has_latest()) continue;  // never started: no steps
    ASSAY_TRY(export_steps(client, run, options, out));
  }
  return {};
}

// A file appears under its name only when it is complete.
Status export_to_file(Client& client, const v1::ListRunsResponse& list, const Options& options) {
  const std::string partial = fmt::format("{}.partial.{}", options.path, ::getpid());
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  Status status;
  if (!out)
    return Error{ErrorCode::invalid_argument, fmt::format("cannot write {}: is the folder there and yours?", partial)};
  status = export_all(client, list, options, out);
  out.close();
  if (status.ok() && !out)
    status = Error{ErrorCode::resource_exhausted, fmt::format("cannot write {}: is the disk full?", partial)};
  if (status.ok() && std::rename(partial.c_str(), options.path.c_str()) != 0)
    status = Error{ErrorCode::invalid_argument, fmt::format("cannot rename {} to {}", partial, options.path)};
  if (!status.ok()) std::remove(partial.c_str());
  return status;
}

Result<ExitCode> run_export(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::ListRunsRequest request;
  for (const std::string& name : options.names) request.mutable_selector()->add_names(name);
  request.mutable_selector()->set_tag(options.tag);
  ASSAY_ASSIGN(const v1::ListRunsResponse list, client.list_runs(request));
  if (options.path.empty()) {
    ASSAY_TRY(export_all(client, list, options, context.console.out));
    return ExitCode::ok;
  }
  ASSAY_TRY(export_to_file(client, list, options));
  if (context.json)
    print_json(context, {{"file", options.path}, {"runs", list.runs_size()}});
  else
    context.console.out << options.path << "\n";
  return ExitCode::ok;
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "export", "Write steps as CSV or JSONL, or runs as JSON",
                            "  assay export --tag monday -o steps.csv\n"
                            "  assay export moe_bf16_dynamic --format jsonl | head -3\n"
                            "  assay export --format json | jq '.[].state'");
  auto options = std::make_shared<Options>();
  verb->add_option("RUN", options->names, "Runs to export (default: all)");
  verb->add_option("--tag", options->tag, "Only this experiment")->type_name("TAG");
  verb->add_option("--format", options->format,
                   "csv or jsonl: one line a step; json: the runs with their attempts and configs")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"csv", "jsonl", "json"}))
      ->capture_default_str();
  verb->add_option("--attempt", options->attempt, "Which attempt, from 1 (default: the newest that has steps)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb->add_option("-o,--output", options->path, "File to write (default: standard output)")->type_name("FILE");
  on_chosen(verb, context, options, run_export);
}

}  // namespace assay
