#include "report/summary.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace assay {
namespace {

bool has_ended(const ReportAttempt& a) {
  return a.attempt.state == AttemptState::ended;
}

// A run that waits (queued, held, retry_wait, paused) waits for an attempt after those it has.
bool is_waiting(RunState state) {
  return !is_terminal(state) && state != RunState::running;
}

bool is_superseded(const ReportRun& run, const ReportAttempt& a) {
  return &a != &run.attempts.back() || (is_waiting(run.run.state) && has_ended(a));
}

std::string number(double value, int decimals) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return fmt::format("{:.{}f}", value, decimals);
}

}  // namespace

const std::vector<std::string> summary_titles = {"run",          "status",         "steps_observed", "last_step",
                                                 "last_loss",    "tail50_tok/sec", "tail50_mfu",     "tail50_dt_ms",
                                                 "peak_mem_mib", "total_time_min"};

const ReportAttempt* current_attempt(const ReportRun& run) {
  if (run.attempts.empty() || is_superseded(run, run.attempts.back())) return nullptr;
  return &run.attempts.back();
}

bool had_nothing_to_do(const ReportRun& run) {
  const ReportAttempt* a = current_attempt(run);
  return a && a->attempt.outcome.result == AttemptResult::completed && a->summary.steps_observed == 0 &&
         a->attempt.resumed_from_step >= run.run.total_steps;
}

bool lacks_its_steps(const ReportRun& run) {
  const ReportAttempt* a = current_attempt(run);
  return a && a->attempt.outcome.result == AttemptResult::completed && a->summary.last_step + 1 < run.run.total_steps &&
         !had_nothing_to_do(run);
}

const ReportAttempt* measured_attempt(const ReportRun& run) {
  if (!had_nothing_to_do(run)) return current_attempt(run);
  const auto with_steps = std::find_if(run.attempts.rbegin(), run.attempts.rend(),
                                       [](const ReportAttempt& a) { return a.summary.steps_observed > 0; });
  return with_steps == run.attempts.rend() ? current_attempt(run) : &*with_steps;
}

std::string attempt_name(const ReportRun& run, const ReportAttempt& a) {
  const bool failed = a.attempt.outcome.result == AttemptResult::failed;
  if (failed && is_superseded(run, a)) return fmt::format("{}.fail{}", run.run.name, a.attempt.n);
  return run.run.name;
}

std::vector<SummaryRow> summary_rows(const ReportInput& input) {
  std::vector<SummaryRow> rows;
  for (const ReportRun& run : input.runs)
    rows.push_back(
        {run.run.name, std::string(to_string(run.run.state)), &run, current_attempt(run), measured_attempt(run)});
  for (const ReportRun& run : input.runs)
    for (const ReportAttempt& a : run.attempts)
      if (a.attempt.outcome.result == AttemptResult::failed && is_superseded(run, a))
        rows.push_back({attempt_name(run, a), std::string(to_string(AttemptResult::failed)), &run, &a, &a});
  return rows;
}

double peak_mem_mib(const ReportAttempt& a) {
  if (!has_ended(a)) return 0;
  return std::max(a.summary.peak_mem_mib, a.attempt.outcome.peak_mem_mib);
}

double total_time_min(const ReportAttempt& a) {
  if (!has_ended(a) || a.attempt.started_at <= 0 || a.attempt.finished_at < a.attempt.started_at) return 0;
  return static_cast<double>(a.attempt.finished_at - a.attempt.started_at) / 60'000;
}

std::vector<std::string> summary_columns(const SummaryRow& row, const std::string& unknown) {
  std::vector<std::string> columns = {row.name, row.status};
  const AttemptSummary none;
  const AttemptSummary& s = row.measured ? row.measured->summary : none;
  const bool observed = s.steps_observed > 0;
  columns.push_back(fmt::format("{}", s.steps_observed));
  columns.push_back(observed ? fmt::format("{}", s.last_step) : unknown);
  columns.push_back(observed ? number(s.last_loss, 4) : unknown);
  columns.push_back(observed ? number(s.tail50_tok_per_sec, 0) : unknown);
  columns.push_back(observed ? number(s.tail50_mfu, 2) : unknown);
  columns.push_back(observed ? number(s.tail50_dt_ms, 1) : unknown);
  const double peak = row.measured ? peak_mem_mib(*row.measured) : 0;
  const double time = row.attempt ? total_time_min(*row.attempt) : 0;
  columns.push_back(peak > 0 ? number(peak, 2) : unknown);
  columns.push_back(time > 0 ? number(time, 2) : unknown);
  return columns;
}

}  // namespace assay
