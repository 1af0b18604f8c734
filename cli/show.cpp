// `assay show RUN`: everything known about one run.
#include <fmt/core.h>

#include <algorithm>

#include "base/clock.h"
#include "cli/change.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/table.h"
#include "cli/verb.h"
#include "wire/convert.h"

namespace assay {
namespace {

struct Options {
  std::string run;
};

std::string time_or_dash(int64_t unix_ms) {
  return unix_ms > 0 ? format_local_time(unix_ms) : "-";
}

// How far the newest attempt came; where it resumed if it has made no step of its own.
int64_t steps_done(const v1::Run& run) {
  if (run.attempts_size() == 0) return 0;
  const v1::Attempt& latest = run.attempts(run.attempts_size() - 1);
  return latest.steps_observed() > 0 ? latest.last_step() + 1 : std::max<int64_t>(0, latest.resumed_from_step());
}

void print_head(Context& context, const v1::Run& run) {
  std::ostream& out = context.console.out;
  const auto line = [&](const char* name, const std::string& value) { out << fmt::format("{:<12}{}\n", name, value); };
  line("run", printable(run.name()));
  line("experiment", fmt::format("{} (tag {})", printable(run.experiment()), printable(run.tag())));
  const std::string why = remark(run, context.clock.unix_ms());
  line("state", paint(run.state(), state_colour(run.state()), context.console.colour) +
                    (why.empty() ? "" : "  " + printable(why)));
  line("steps", fmt::format("{}/{}", steps_done(run), run.total_steps()));
  line("repeat", fmt::format("{} (seed {})", run.repeat(), run.seed()));
  line("devices", fmt::format("{}", run.devices()));
  line("priority", fmt::format("{}", run.priority()));
  line("created", time_or_dash(run.created_at()));
  line("finished", time_or_dash(run.finished_at()));
}

void print_attempts(Context& context, const v1::Run& run) {
  Table table({{"attempt", Align::right},
               {"name", Align::left, true},
               {"state"},
               {"started"},
               {"time", Align::right},
               {"steps", Align::right},
               {"loss", Align::right},
               {"tok/sec", Align::right},
               {"peak", Align::right},
               {"worker", Align::left, true}});
  for (const v1::Attempt& a : run.attempts()) {
    const bool ended = a.state() == to_string(AttemptState::ended);
    const std::string state = ended ? a.outcome().result() : a.state();
    const int64_t end = a.finished_at() > 0 ? a.finished_at() : context.clock.unix_ms();
    const bool observed = a.steps_observed() > 0;
    table.add({fmt::format("{}", a.n()), attempt_name(run, a), TableCell(state, state_colour(state)),
               time_or_dash(a.started_at()), a.started_at() > 0 ? format_duration(end - a.started_at()) : "-",
               fmt::format("{}", a.steps_observed()), observed ? format_loss(a.last_loss()) : "-",
               observed ? format_rate(a.tail50_tok_per_sec()) : "-", format_mib(a.peak_mem_mib()), a.worker_id()});
  }
  context.console.out << "\n" << table.text(context.console.width, context.console.colour);
}

void print_lines(std::ostream& out, std::string_view text, const char* indent) {
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = printable(text.substr(start, end - start));
    out << (line.empty() ? "" : indent + line) << "\n";
    start = end + 1;
  }
}

Status print_failure(Context& context, const v1::Run& run, const v1::Attempt& attempt) {
  ASSAY_ASSIGN(const AttemptOutcome o, from_proto(attempt.outcome()));
  std::ostream& out = context.console.out;
  out << fmt::format("\n{} (attempt {}): {}\n",
                     paint(printable(attempt_name(run, attempt)), Colour::bold, context.console.colour), attempt.n(),
                     paint(std::string(to_string(o.reason)), Colour::red, context.console.colour));
  print_lines(out, o.error, "  ");
  for (const OutcomeFact& fact : failure_facts(o)) out << fmt::format("  {:<9} {}\n", fact.name, printable(fact.value));
  if (!attempt.log_path().empty()) out << "  log       " << printable(attempt.log_path()) << "\n";
  if (!o.log_tail.empty()) {
    out << "  last lines of its log:\n";
    print_lines(out, o.log_tail, "    | ");
  }
  return {};
}

Result<ExitCode> run_show(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  v1::GetRunRequest request;
  request.set_name(options.run);
  ASSAY_ASSIGN(const v1::Run run, client.call(&Rpc::GetRun, request));
  if (context.json) {
    print_json(context, to_json(run));
    return ExitCode::ok;
  }
  print_head(context, run);
  if (run.attempts_size() > 0) print_attempts(context, run);
  context.console.out << "\n";
  print_lines(context.console.out, run.config_toml(), "  ");
  for (const v1::Attempt& attempt : run.attempts()) {
    if (attempt.outcome().result() == to_string(AttemptResult::failed)) ASSAY_TRY(print_failure(context, run, attempt));
    if (attempt.outcome().result() == to_string(AttemptResult::stopped))
      context.console.out << fmt::format("\nattempt {}: {}\n", attempt.n(), first_line(attempt.outcome().error()));
  }
  return ExitCode::ok;
}

}  // namespace

void add_show(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "show", "Show one run: its state, attempts, errors and config",
                            "  assay show moe_fp8_experts_static\n"
                            "  assay show 20260224_162523/moe_bf16_dynamic");
  auto options = std::make_shared<Options>();
  verb->add_option("RUN", options->run, run_name_help)->required();
  on_chosen(verb, context, options, run_show);
}

}  // namespace assay
