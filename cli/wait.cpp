// `assay wait`: until runs have ended, and did all complete?
#include <fmt/core.h>

#include <map>
#include <set>

#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/verb.h"

namespace assay {
namespace {

constexpr int64_t poll_ms = 500;  // a run takes seconds at least; listing a full queue takes 50 ms

struct Options {
  std::vector<std::string> names;
  std::string tag;
  double timeout_s = 0;
};

v1::ListRunsRequest request_for(const Options& options) {
  v1::ListRunsRequest request;
  for (const std::string& name : options.names) request.mutable_selector()->add_names(name);
  request.mutable_selector()->set_tag(options.tag);
  return request;
}

// Without names and tag the wait is for what is live when it begins: runs that ended before are history.
std::set<int64_t> chosen_runs(const v1::ListRunsResponse& list, const Options& options) {
  const bool everything = options.names.empty() && options.tag.empty();
  std::set<int64_t> ids;
  for (const v1::Run& run : list.runs())
    if (!everything || is_live(run.state())) ids.insert(run.id());
  return ids;
}

struct Standing {
  std::map<std::string, int64_t> by_state;
  std::vector<const v1::Run*> not_completed;
  int64_t live = 0;
};

Standing standing(const v1::ListRunsResponse& list, const std::set<int64_t>& chosen) {
  Standing s;
  for (const v1::Run& run : list.runs()) {
    if (!chosen.contains(run.id())) continue;
    ++s.by_state[run.state()];
    s.live += is_live(run.state());
    if (run.state() != "completed") s.not_completed.push_back(&run);
  }
  return s;
}

void print(Context& context, const Standing& s, bool timed_out) {
  if (context.json) {
    Json states = Json::object();
    for (const auto& [state, count] : s.by_state) states[state] = count;
    Json others = Json::array();
    for (const v1::Run* run : s.not_completed) others.push_back(run->name());
    print_json(context, {{"completed", s.not_completed.empty()},
                         {"timed_out", timed_out},
                         {"states", states},
                         {"not_completed", others}});
    return;
  }
  const Console& console = context.console;
  console.out << (s.by_state.empty() ? "nothing to wait for" : counts_line(s.by_state, console.colour)) << "\n";
  for (const v1::Run* run : s.not_completed) {
    const std::string why = remark(*run, context.clock.unix_ms());
    console.out << "  " << printable(run->name()) << ": "
                << paint(run->state(), state_colour(run->state()), console.colour)
                << (why.empty() ? "" : " (" + printable(why) + ")") << "\n";
  }
}

Result<ExitCode> run_wait(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  const v1::ListRunsRequest request = request_for(options);
  ASSAY_ASSIGN(v1::ListRunsResponse list, client.list_runs(request));
  const std::set<int64_t> chosen = chosen_runs(list, options);
  if (chosen.empty() && !options.tag.empty())
    return Error{ErrorCode::not_found,
                 fmt::format("no run has the tag '{}'; `assay ls` shows all", printable(options.tag))};
  if (list.queue_held()) context.console.err << "the queue is held: waiting runs do not start before `assay release`\n";
  const int64_t deadline = context.clock.monotonic_ms() + static_cast<int64_t>(options.timeout_s * 1000);
  while (true) {
    const Standing now = standing(list, chosen);
    const bool timed_out = options.timeout_s > 0 && context.clock.monotonic_ms() >= deadline;
    if (now.live == 0 || timed_out) {
      print(context, now, now.live > 0);
      if (now.live > 0) return ExitCode::timed_out;
      return now.not_completed.empty() ? ExitCode::ok : ExitCode::negative;
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
                            "  assay wait moe_bf16_dynamic --timeout 600    # exit code 10 when the time is over");
  auto options = std::make_shared<Options>();
  verb->add_option("RUN", options->names, "Run names, \"name\" or \"tag/name\"");
  verb->add_option("--tag", options->tag, "Every run of this experiment")->type_name("TAG");
  verb->add_option("--timeout", options->timeout_s, "Give up after this many seconds (0 = never)")
      ->type_name("SECONDS")
      ->check(CLI::NonNegativeNumber);
  on_chosen(verb, context, options, run_wait);
}

}  // namespace assay
