// `assay ls`: the runs and how they stand.
#include <fmt/core.h>

#include "cli/change.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/table.h"
#include "cli/units.h"
#include "cli/verb.h"
#include "spec/words.h"

namespace assay {
namespace {

struct Options {
  std::string tag;
  std::vector<std::string> states;
  int64_t limit = 0;
};

void print_table(Context& context, const v1::ListRunsResponse& list) {
  ExperimentLabels experiments;
  for (const v1::Run& run : list.runs()) experiments.see(run.experiment(), run.tag());
  const bool with_tag = experiments.several();
  std::vector<Column> columns = {{"run", Align::left, true, true}, {"state"},
                                 {"step", Align::right},           {"loss", Align::right},
                                 {"tok/sec", Align::right},        {"time", Align::right},
                                 {"remark", Align::left, true}};
  if (with_tag) columns.insert(columns.begin(), {"tag", Align::left, true, true});
  Table table(columns);
  const int64_t now = context.clock.unix_ms();
  for (const v1::Run& run : list.runs()) {
    const bool started = run.has_latest() && run.latest().steps_observed() > 0;
    const int64_t elapsed = elapsed_ms(run, now);
    std::vector<TableCell> row = {run.name(),
                                  TableCell(run.state(), state_colour(run.state())),
                                  fmt::format("{}/{}", started ? run.latest().last_step() + 1 : 0, run.total_steps()),
                                  loss_cell(run),
                                  rate_cell(run),
                                  elapsed < 0 ? "-" : format_duration(elapsed),
                                  remark(run, now)};
    if (with_tag) row.insert(row.begin(), experiments.label(run.experiment(), run.tag()));
    table.add(std::move(row));
  }
  if (table.rows() > 0) context.console.out << table.text(context.console.width, context.console.colour) << "\n";
  context.console.out << counts_line(list, context.console.colour);
  if (list.total() > list.runs_size())
    context.console.out << fmt::format(" ({} of {} runs shown)", list.runs_size(), list.total());
  context.console.out << "\n";
  if (list.queue_held()) context.console.out << "the queue is held: nothing new starts before `assay release`\n";
}

Result<ExitCode> run_ls(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::ListRunsRequest request;
  request.mutable_selector()->set_tag(options.tag);
  for (const std::string& state : options.states) request.mutable_selector()->add_states(state);
  request.set_limit(options.limit);
  ASSAY_ASSIGN(const v1::ListRunsResponse list, client.list_runs(request));
  if (!context.json) {
    print_table(context, list);
    return ExitCode::ok;
  }
  Json runs = Json::array();
  for (const v1::Run& run : list.runs()) runs.push_back(to_json(run));
  print_json(context, {{"runs", runs}, {"total", list.total()}, {"queue_held", list.queue_held()}});
  return ExitCode::ok;
}

}  // namespace

void add_ls(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "ls", "List runs and how they stand",
                            "  assay ls\n"
                            "  assay ls --tag 20260224_162523 --state running --state queued\n"
                            "  assay ls --state failed --json | jq -r '.runs[].name'");
  auto options = std::make_shared<Options>();
  add_tag(verb, options->tag, "Only this experiment");
  verb->add_option("--state", options->states, "Only runs in this state; may be given several times")
      ->type_name("STATE")
      ->check(CLI::IsMember(std::vector<std::string>(word_texts<RunState>.begin(), word_texts<RunState>.end())));
  add_count(verb, "--limit", options->limit, 0, "At most this many runs (0 = all)");
  on_chosen(verb, context, options, run_ls);
}

}  // namespace assay
