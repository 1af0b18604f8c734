#include "cli/run_rows.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "cli/format.h"
#include "spec/run_outcome.h"

namespace assay {
namespace {

bool is(const v1::Run& run, RunState state) {
  return run.state() == to_string(state);
}

bool waits(const v1::Run& run) {
  return is_live(run.state()) && !is(run, RunState::running);
}

bool observed(const v1::Run& run) {
  return run.has_latest() && run.latest().steps_observed() > 0;
}

}  // namespace

bool is_live(const std::string& state) {
  const auto known = find_word<RunState>(state);
  return known && !is_terminal(*known);
}

bool has_ended(const std::string& state) {
  const auto known = find_word<RunState>(state);
  return known && is_terminal(*known);
}

std::string full_name(const v1::Run& run) {
  return run.experiment() + "/" + run.tag() + "/" + run.name();
}

std::string ExperimentLabels::label(const std::string& experiment, const std::string& tag) const {
  if (!several()) return {};
  const bool plain =
      std::all_of(seen_.begin(), seen_.end(), [](const auto& entry) { return entry.second.size() == 1; });
  return plain ? tag : experiment + "/" + tag;
}

std::string ExperimentLabels::run_name(const std::string& experiment, const std::string& tag,
                                       const std::string& name) const {
  const std::string of = label(experiment, tag);
  return of.empty() ? name : of + "/" + name;
}

double progress(const v1::Run& run) {
  if (is(run, RunState::completed)) return 1.0;
  if (!observed(run) || run.total_steps() <= 0) return 0.0;
  return std::clamp(static_cast<double>(run.latest().last_step() + 1) / static_cast<double>(run.total_steps()), 0.0,
                    1.0);
}

int64_t time_left_ms(const v1::Run& run) {
  if (!is(run, RunState::running) || !observed(run)) return -1;
  const double dt = run.latest().tail50_dt_ms();
  if (!std::isfinite(dt) || dt <= 0) return -1;
  const int64_t steps = std::max<int64_t>(0, run.total_steps() - run.latest().last_step() - 1);
  return static_cast<int64_t>(static_cast<double>(steps) * dt);
}

int64_t elapsed_ms(const v1::Run& run, int64_t now) {
  if (!run.has_latest() || run.latest().started_at() <= 0) return -1;
  const int64_t end = run.latest().finished_at() > 0 ? run.latest().finished_at() : now;
  return std::max<int64_t>(0, end - run.latest().started_at());
}

std::string remark(const v1::Run& run, int64_t now) {
  if (run.cancel_requested() && is_live(run.state())) return "cancelling";
  if (is(run, RunState::retry_wait)) {
    const int64_t wait = run.not_before() - now;
    return wait > 0 ? "starts again in " + format_duration(wait) : "starts again soon";
  }
  if (waits(run) && !run.not_started().empty()) return "not started: " + first_line(run.not_started());
  if (!run.has_latest()) return {};
  const v1::Attempt& latest = run.latest();
  if (is(run, RunState::failed)) return printable(failure_text(latest.outcome().reason(), latest.outcome().error()));
  std::string text = latest.n() > 1 ? fmt::format("attempt {}", latest.n()) : "";
  const auto append = [&](const std::string& more) { text += (text.empty() ? "" : ", ") + more; };
  if (waits(run) && latest.outcome().result() == to_string(AttemptResult::stopped))
    append("stopped with its worker");
  else if (is(run, RunState::running) && latest.state() == to_string(AttemptState::unreachable))
    append("worker unreachable");
  else if (is(run, RunState::running) && latest.phase() != to_string(Phase::step) && !latest.phase().empty())
    append(latest.phase());
  return text;
}

std::string attempt_name(const v1::Run& run, const v1::Attempt& attempt) {
  const bool followed = attempt.n() < run.attempts(run.attempts_size() - 1).n();
  if (attempt.outcome().result() != to_string(AttemptResult::failed) || !(followed || waits(run))) return run.name();
  return fmt::format("{}.fail{}", run.name(), attempt.n());
}

std::string counts_line(const std::map<std::string, int64_t>& by_state, bool colour) {
  std::string line;
  const auto add = [&](const std::string& state, int64_t count) {
    if (count == 0) return;
    line += line.empty() ? "" : ", ";
    line += paint(fmt::format("{} {}", count, printable(state)), state_colour(state), colour);
  };
  for (const Word& word : words_of(RunState{}))
    if (const auto found = by_state.find(std::string(word.text)); found != by_state.end())
      add(found->first, found->second);
  for (const auto& [state, count] : by_state)  // those of a newer daemon, as they are
    if (!find_word<RunState>(state)) add(state, count);
  return line.empty() ? "no runs" : line;
}

std::string counts_line(const v1::ListRunsResponse& list, bool colour) {
  return counts_line(std::map<std::string, int64_t>(list.by_state().begin(), list.by_state().end()), colour);
}

Result<bool> any_live(const v1::ListRunsResponse& list) {
  bool live = false;
  for (const auto& [state, count] : list.by_state()) {
    if (count > 0 && !find_word<RunState>(state))
      return Error{
          ErrorCode::failed_precondition,
          fmt::format("the daemon has runs in the state \"{}\", which this program does not know: whether they "
                      "have ended it cannot say; use the `assay` of the daemon's version",
                      state)};
    live = live || (count > 0 && is_live(state));
  }
  return live;
}

std::string loss_cell(const v1::Run& run) {
  return observed(run) ? format_loss(run.latest().last_loss()) : "-";
}
std::string rate_cell(const v1::Run& run) {
  return observed(run) ? format_rate(run.latest().tail50_tok_per_sec()) : "-";
}

}  // namespace assay
