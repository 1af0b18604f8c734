// `assay wait`: until runs have ended, and did all complete?
#include <fmt/core.h>

#include <map>
#include <vector>

#include "cli/change.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/units.h"
#include "cli/verb.h"

namespace assay {
namespace {

constexpr int64_t poll_ms = 500;  // a run takes seconds at least; listing a full queue takes 50 ms

struct Options {
  std::vector<std::string> names;
  std::string tag;
  int64_t timeout_ms = 0;  // 0 = never
};

// The runs that the wait is for, as they are now. Without names and tag these are the ones that are live when it
// begins: runs that ended before are history.
Result<v1::ListRunsResponse> chosen_runs(Client& client, const Options& options) {
  v1::ListRunsRequest request;
  for (const std::string& name : options.names) request.mutable_selector()->add_names(name);
  request.mutable_selector()->set_tag(options.tag);
  if (options.names.empty() && options.tag.empty()) {
    // Asked for by its state, a run in one that only a newer daemon knows would be passed over.
    v1::ListRunsRequest all;
    all.set_limit(1);
    ASSAY_ASSIGN(const v1::ListRunsResponse counted, client.list_runs(all));
    if (const auto live = any_live(counted); !live.ok()) return live.error();
    for (const RunState state : live_states()) request.mutable_selector()->add_states(std::string(to_string(state)));
  }
  return client.list_runs(request);
}

// From then on by id: a name may come to mean another run, and a tag more of them.
v1::ListRunsRequest the_same(const v1::ListRunsResponse& list) {
  v1::ListRunsRequest request;
  for (const v1::Run& run : list.runs()) request.mutable_selector()->add_ids(run.id());
  return request;
}

std::vector<const v1::Run*> not_completed(const v1::ListRunsResponse& list) {
  std::vector<const v1::Run*> runs;
  for (const v1::Run& run : list.runs())
    if (run.state() != to_string(RunState::completed)) runs.push_back(&run);
  return runs;
}

void print(Context& context, const v1::ListRunsResponse& list, bool timed_out) {
  const std::vector<const v1::Run*> others = not_completed(list);
  if (context.json) {
    Json states = Json::object();
    for (const auto& [state, count] : std::map(list.by_state().begin(), list.by_state().end())) states[state] = count;
    Json names = Json::array(), runs = Json::array();
    for (const v1::Run* run : others) {
      names.push_back(run->name());
      runs.push_back(full_name(*run));
    }
    print_json(context, {{"completed", others.empty()},
                         {"timed_out", timed_out},
                         {"states", states},
                         {"not_completed", names},
                         {"not_completed_full", runs}});
    return;
  }
  const Console& console = context.console;
  console.out << (list.runs_size() == 0 ? "nothing to wait for" : counts_line(list, console.colour)) << "\n";
  ExperimentLabels experiments;
  for (const v1::Run& run : list.runs()) experiments.see(run.experiment(), run.tag());
  for (const v1::Run* run : others) {
    const std::string why = remark(*run, context.clock.unix_ms());
    console.out << "  " << printable(experiments.run_name(run->experiment(), run->tag(), run->name())) << ": "
                << paint(run->state(), state_colour(run->state()), console.colour)
                << (why.empty() ? "" : " (" + printable(why) + ")") << "\n";
  }
}

Result<ExitCode> run_wait(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  ASSAY_ASSIGN(v1::ListRunsResponse list, chosen_runs(client, options));
  const v1::ListRunsRequest request = the_same(list);
  if (list.queue_held()) remark(context, "the queue is held: waiting runs do not start before `assay release`");
  const int64_t deadline = context.clock.monotonic_ms() + options.timeout_ms;
  while (true) {
    ASSAY_ASSIGN(const bool live, any_live(list));
    if (!live || (options.timeout_ms > 0 && context.clock.monotonic_ms() >= deadline)) {
      print(context, list, live);
      if (live) return ExitCode::timed_out;
      return not_completed(list).empty() ? ExitCode::ok : ExitCode::negative;
    }
    context.pause(poll_ms);
    ASSAY_ASSIGN(list, client.list_runs(request));
  }
}

}  // namespace

void add_wait(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "wait", "Wait until runs have ended; exit code 0 if all completed, 1 if not",
                            "  assay wait                          # everything that is live now\n"
                            "  assay wait --tag monday && assay report --tag monday\n"
                            "  assay wait moe_bf16_dynamic --timeout 10m    # exit code 10 when the time is over");
  auto options = std::make_shared<Options>();
  verb->add_option("RUN", options->names, std::string("Runs to wait for: ") + run_name_help);
  add_tag(verb, options->tag, "Every run of this experiment");
  add_duration(verb, "--timeout", options->timeout_ms,
               "Give up after this long: seconds, or 90s, 5m, 2h, 1d (0 = never)");
  on_chosen(verb, context, options, run_wait);
}

}  // namespace assay
