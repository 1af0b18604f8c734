#include "report/csv.h"

#include <fmt/core.h>
#include <fmt/format.h>

#include <cmath>

#include "base/csv.h"
#include "report/loss.h"
#include "report/summary.h"
#include "spec/step_text.h"

namespace assay {
namespace {

constexpr const char* more_titles =
    "tail50_loss,val_loss,reason,attempt,repeat,seed,precision,execution,total_steps,priority,worker,started_at,"
    "finished_at,resumed_from_step,exit_code,signal,error_step,error,log_path";

std::string number_or_empty(bool known, double value) {
  return known && !std::isnan(value) ? csv_number(value) : "";
}
std::string integer_or_empty(bool known, int64_t value) {
  return known ? fmt::format("{}", value) : "";
}

// Everything in the order of more_titles.
std::vector<std::string> more_columns(const SummaryRow& row) {
  const RunRow& run = row.run->run;
  const RunConfig& config = row.run->config;
  const bool tried = row.attempt != nullptr;
  const AttemptRow none;
  const AttemptRow& a = tried ? row.attempt->attempt : none;
  const AttemptSummary s = row.measured ? row.measured->summary : AttemptSummary{};
  const bool observed = s.steps_observed > 0;
  const bool failed = a.outcome.result == AttemptResult::failed;
  // Of a run that was resumed the loss is read across attempts, as in Comparison: a name has one value in a report.
  const bool resumed = tried && a.resumed_from_step >= 0 && row.attempt == current_attempt(*row.run);
  const double tail50_loss = resumed ? run_loss(*row.run, LossKind::training).value : s.tail50_loss;
  return {number_or_empty(observed, tail50_loss),
          number_or_empty(observed, s.last_val_loss),
          failed ? std::string(to_string(a.outcome.reason)) : "",
          integer_or_empty(tried, a.n),
          fmt::format("{}", run.repeat),
          fmt::format("{}", run.seed),
          std::string(to_string(config.precision)),
          std::string(to_string(config.execution)),
          fmt::format("{}", run.total_steps),
          fmt::format("{}", run.priority),
          a.worker_id,
          integer_or_empty(a.started_at > 0, a.started_at),
          integer_or_empty(a.finished_at > 0, a.finished_at),
          integer_or_empty(a.resumed_from_step >= 0, a.resumed_from_step),
          integer_or_empty(failed && a.outcome.exit_code >= 0 && a.outcome.signal == 0, a.outcome.exit_code),
          integer_or_empty(failed && a.outcome.signal != 0, a.outcome.signal),
          integer_or_empty(failed && a.outcome.step >= 0, a.outcome.step),
          std::string(error_headline(a.outcome.error)),
          a.log_path};
}

void add_line(std::string& csv, const std::vector<std::string>& fields) {
  for (size_t i = 0; i < fields.size(); ++i) csv += (i == 0 ? "" : ",") + csv_field(fields[i]);
  csv += "\n";
}

}  // namespace

std::string summary_csv(const ReportInput& input) {
  std::string csv;
  for (const std::string& title : summary_titles) csv += title + ",";
  csv += std::string(more_titles) + "\n";
  for (const SummaryRow& row : summary_rows(input)) {
    std::vector<std::string> fields = summary_columns(row, "");
    for (std::string& field : more_columns(row)) fields.push_back(std::move(field));
    add_line(csv, fields);
  }
  return csv;
}

std::string steps_csv(const ReportInput& input) {
  std::string csv = steps_csv_header();
  for (const ReportRun& run : input.runs) {
    for (const ReportAttempt& a : run.attempts) {
      const std::string name = attempt_name(run, a);
      for (const StepMetrics& m : a.steps) append_steps_csv(csv, name, a.attempt.n, m);
    }
  }
  return csv;
}

}  // namespace assay
