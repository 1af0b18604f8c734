#include "cli/run_rows.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "cli/format.h"
#include "spec/run_outcome.h"

namespace assay {
namespace {

constexpr const char* states_in_order[] = {"running", "queued",    "retry_wait", "held",
                                           "paused",  "completed", "failed",     "cancelled"};

bool waits(const v1::Run& run) {
  return is_live(run.state()) && run.state() != "running";
}

bool observed(const v1::Run& run) {
  return run.has_latest() && run.latest().steps_observed() > 0;
}

}  // namespace

bool is_live(const std::string& state) {
  return std::find(std::begin(live_states), std::end(live_states), state) != std::end(live_states);
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
  if (run.state() == "completed") return 1.0;
  if (!observed(run) || run.total_steps() <= 0) return 0.0;
  return std::clamp(static_cast<double>(run.latest().last_step() + 1) / static_cast<double>(run.total_steps()), 0.0,
                    1.0);
}

int64_t time_left_ms(const v1::Run& run) {
  if (run.state() != "running" || !observed(run)) return -1;
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
  if (run.state() == "retry_wait") {
    const int64_t wait = run.not_before() - now;
    return wait > 0 ? "starts again in " + format_duration(wait) : "starts again soon";
  }
  if (waits(run) && !run.not_started().empty()) return "not started: " + first_line(run.not_started());
  if (!run.has_latest()) return {};
  const v1::Attempt& latest = run.latest();
  if (run.state() == "failed") return printable(failure_text(latest.outcome().reason(), latest.outcome().error()));
  std::string text = latest.n() > 1 ? fmt::format("attempt {}", latest.n()) : "";
  const auto append = [&](const std::string& more) { text += (text.empty() ? "" : ", ") + more; };
  if (waits(run) && latest.outcome().result() == "stopped")
    append("stopped with its worker");
  else if (run.state() == "running" && latest.state() == "unreachable")
    append("worker unreachable");
  else if (run.state() == "running" && latest.phase() != "step" && !latest.phase().empty())
    append(latest.phase());
  return text;
}

std::string attempt_name(const v1::Run& run, const v1::Attempt& attempt) {
  const bool followed = attempt.n() < run.attempts(run.attempts_size() - 1).n();
  if (attempt.outcome().result() != "failed" || !(followed || waits(run))) return run.name();
  return fmt::format("{}.fail{}", run.name(), attempt.n());
}

std::string counts_line(const std::map<std::string, int64_t>& by_state, bool colour) {
  std::string line;
  for (const char* state : states_in_order) {
    const auto found = by_state.find(state);
    if (found == by_state.end() || found->second == 0) continue;
    line += (line.empty() ? "" : ", ") + paint(fmt::format("{} {}", found->second, state), state_colour(state), colour);
  }
  return line.empty() ? "no runs" : line;
}

std::string counts_line(const v1::ListRunsResponse& list, bool colour) {
  return counts_line(std::map<std::string, int64_t>(list.by_state().begin(), list.by_state().end()), colour);
}

bool any_live(const v1::ListRunsResponse& list) {
  return std::any_of(list.by_state().begin(), list.by_state().end(),
                     [](const auto& counted) { return counted.second > 0 && is_live(counted.first); });
}

std::string loss_cell(const v1::Run& run) {
  return observed(run) ? format_loss(run.latest().last_loss()) : "-";
}
std::string rate_cell(const v1::Run& run) {
  return observed(run) ? format_rate(run.latest().tail50_tok_per_sec()) : "-";
}

}  // namespace assay
