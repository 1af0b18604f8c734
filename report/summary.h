// The lines of Run Summary: which attempts are shown, under which name, with which numbers.
#pragma once

#include <string>
#include <vector>

#include "report/report.h"

namespace assay {

struct SummaryRow {
  std::string name;                         // the run's, or "<run>.fail<N>" with N the attempt's number
  std::string status;                       // the run's state, or "failed"
  const ReportRun* run = nullptr;           // never null; into the input
  const ReportAttempt* attempt = nullptr;   // null: no attempt is current (waiting, or waiting again after a failure)
  const ReportAttempt* measured = nullptr;  // whose steps the numbers are from: `attempt`, but see measured_attempt
};

// Every run in queue order with its newest attempt, then the failed attempts that were followed by another one, or that
// another one is waited for after. Attempts that were stopped with their worker are nobody's failure and have no line.
std::vector<SummaryRow> summary_rows(const ReportInput&);

// The attempt that stands for a run; null before the first and while a run waits for another attempt.
const ReportAttempt* current_attempt(const ReportRun&);
// The attempt whose steps a run's numbers come from: the current one, unless that resumed behind the last step and had
// nothing to do. Then it is the newest before it that made steps.
const ReportAttempt* measured_attempt(const ReportRun&);
// Did the current attempt complete without a step of its own, because it resumed behind the last one?
bool had_nothing_to_do(const ReportRun&);
// Did it complete, and the store lacks its last steps (metrics.db was lost, or is an older copy)?
bool lacks_its_steps(const ReportRun&);

// "<run>" or "<run>.fail<N>", as in summary_rows.
std::string attempt_name(const ReportRun&, const ReportAttempt&);

// Peak memory of an ended attempt, the larger of what the steps and the outcome say; 0 = not known.
double peak_mem_mib(const ReportAttempt&);
// Wall time of an ended attempt; 0 = not known.
double total_time_min(const ReportAttempt&);

// The ten columns, formatted: loss 4 decimals, tok/sec integer, mfu 2, dt 1, MiB 2, minutes 2; `unknown` where there is
// nothing to show.
std::vector<std::string> summary_columns(const SummaryRow&, const std::string& unknown);
extern const std::vector<std::string> summary_titles;

}  // namespace assay
