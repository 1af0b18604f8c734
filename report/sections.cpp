#include "report/sections.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <ctime>

#include "base/clock.h"
#include "report/markdown.h"
#include "report/summary.h"

namespace assay {
namespace {

// "2026-02-24 16:30:21 +08:00": a start time is read on another machine than it was written on.
std::string time_with_zone(int64_t unix_ms) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  const char sign = local.tm_gmtoff < 0 ? '-' : '+';
  const long minutes = std::labs(local.tm_gmtoff) / 60;
  return fmt::format("{} {}{:02}:{:02}", format_local_time(unix_ms), sign, minutes / 60, minutes % 60);
}

std::string detail(const ReportRun& run) {
  const std::string steps = fmt::format("{} steps", run.run.total_steps);
  const ReportAttempt* a = current_attempt(run);
  switch (run.run.state) {
    case RunState::running: {
      if (!a || a->attempt.started_at <= 0) return steps + ", starting";
      std::string text = fmt::format("{}, started at {}", steps, time_with_zone(a->attempt.started_at));
      if (a->summary.steps_observed > 0) text += fmt::format(", at step {}", a->summary.last_step);
      return text;
    }
    case RunState::retry_wait:
      return run.run.not_before > 0 ? fmt::format("{}, not before {}", steps, time_with_zone(run.run.not_before))
                                    : steps;
    case RunState::failed:
      return a ? fmt::format("{}, {}", steps, to_string(a->attempt.outcome.reason)) : steps;
    default:
      return steps;
  }
}

struct StateTitle {
  RunState state;
  std::string_view title;
  bool always;  // even if no run is in it
};
// Any other state follows under its own word.
constexpr StateTitle listed_first[] = {{RunState::completed, "Completed", true},
                                       {RunState::running, "Running now", true},
                                       {RunState::queued, "Queued", true},
                                       {RunState::held, "Held", false},
                                       {RunState::retry_wait, "Waiting for a retry", false}};

std::string capitalised(std::string_view word) {
  std::string text(word);
  text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text;
}

void list_state(std::string& text, const ReportInput& input, RunState state, std::string_view title, bool always) {
  std::string list;
  for (const ReportRun& run : input.runs)
    if (run.run.state == state) list += fmt::format("  - {} ({})\n", md_code(run.run.name), detail(run));
  if (list.empty() && !always) return;
  text += list.empty() ? fmt::format("- {}: none\n", title) : fmt::format("- {}:\n{}", title, list);
}

std::string failure_text(const ReportRun& run, const ReportAttempt& a) {
  const AttemptOutcome& o = a.attempt.outcome;
  std::string text = fmt::format("\n### {}\n\n", md_code(attempt_name(run, a)));
  const auto item = [&](std::string_view name, const std::string& value) {
    text += fmt::format("- {}: {}\n", name, value);
  };
  item("attempt", fmt::format("{}", a.attempt.n));
  item("reason", md_code(to_string(o.reason)));
  item("error", o.error.empty() ? "none captured" : md_code(error_headline(o.error)));
  for (const OutcomeFact& fact : failure_facts(o)) item(fact.name, fact.foreign ? md_code(fact.value) : fact.value);
  if (!a.attempt.log_path.empty()) item("log", md_code(a.attempt.log_path));
  if (const std::string_view details = error_details(o.error); !details.empty())
    text += "\nDetails of the error:\n\n" + md_fence(details);
  if (!o.log_tail.empty()) text += "\nLast lines of the log:\n\n" + md_fence(o.log_tail);
  return text;
}

// Why a completed run has no steps of its own, and whose its numbers are.
std::string nothing_to_do(const ReportRun& run) {
  const ReportAttempt& last = run.attempts.back();
  const ReportAttempt& measured = *measured_attempt(run);
  return fmt::format("{}: attempt {} resumed at step {}, where nothing was left to do; {}.\n", md_code(run.run.name),
                     last.attempt.n, last.attempt.resumed_from_step,
                     &measured == &last ? std::string("the steps before it are not in this store")
                                        : fmt::format("the numbers are those of attempt {}", measured.attempt.n));
}

}  // namespace

std::string summary_section(const ReportInput& input) {
  std::string text = "## Run Summary\n\n" + md_header(summary_titles, "llrrrrrrrr");
  for (const SummaryRow& row : summary_rows(input)) {
    std::vector<std::string> cells = summary_columns(row, "-");
    cells[0] = md_text(cells[0]);
    text += md_row(cells);
  }
  for (const ReportRun& run : input.runs)
    if (had_nothing_to_do(run))
      text += "\n" + nothing_to_do(run);
    else if (lacks_its_steps(run))
      text += fmt::format(
          "\n{}: the last steps of attempt {} are not in this store (it has {} of {}): its numbers are not those "
          "of the whole run. Its journal is in `runs/`.\n",
          md_code(run.run.name), run.attempts.back().attempt.n, run.attempts.back().summary.last_step + 1,
          run.run.total_steps);
  return text;
}

std::string queue_section(const ReportInput& input) {
  std::string text = "## Queue Status\n\n";
  if (input.queue_held) text += "- The queue is held: nothing new starts\n";
  for (const StateTitle& listed : listed_first) list_state(text, input, listed.state, listed.title, listed.always);
  for (size_t i = 0; i < words_of(RunState{}).size(); ++i) {
    const auto state = static_cast<RunState>(i);
    const bool listed = std::any_of(std::begin(listed_first), std::end(listed_first),
                                    [&](const StateTitle& first) { return first.state == state; });
    if (!listed) list_state(text, input, state, capitalised(to_string(state)), false);
  }
  return text;
}

std::string failures_section(const ReportInput& input) {
  std::string text = "## Failures\n";
  bool any = false;
  for (const SummaryRow& row : summary_rows(input)) {
    if (!row.attempt || row.attempt->attempt.outcome.result != AttemptResult::failed) continue;
    any = true;
    text += failure_text(*row.run, *row.attempt);
  }
  return any ? text : text + "\nNo attempt has failed.\n";
}

std::string artifacts_section(const ReportInput& input) {
  return "## Artifacts\n\n- `report.md`: this page\n- `summary.csv`: Run Summary and more columns, one line per row "
         "above\n"
         "- `steps.csv`: every observed step of every attempt\n" +
         fmt::format("- Logs and checkpoints of every attempt: below {}\n", md_code(input.home));
}

}  // namespace assay
