// The report of one experiment: plain rows in, three files as text out. No clock, no database, no file system, so the
// same input always gives the same bytes. report/load.h fills the input from the store.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "db/types.h"
#include "spec/run_config.h"

namespace assay {

struct ReportAttempt {
  AttemptRow attempt;
  AttemptSummary summary;          // all zero and last_step == -1 before the first step
  std::vector<StepMetrics> steps;  // ascending; goes into steps.csv
};

struct ReportRun {
  RunRow run;
  RunConfig config;                     // parsed from run.config_toml: precision, execution, steps
  std::vector<ReportAttempt> attempts;  // ascending by n; empty before the first
};

struct ReportInput {
  ExperimentRow experiment;
  std::vector<ReportRun> runs;  // in queue order
  int64_t now = 0;              // unix ms: "Generated at"
  std::string home;             // state folder, shown as the place of logs
  bool queue_held = false;      // `assay hold` of the whole queue is in force
};

struct ReportFiles {
  std::string report_md;    // "report.md"
  std::string summary_csv;  // "summary.csv": one row per line of Run Summary
  std::string steps_csv;    // "steps.csv": every observed step of every attempt
};

// `baseline`: run name everything is compared with; empty = the experiment's baseline, else the first run. Only a name
// that no run has is an error (not_found).
Result<ReportFiles> build_report(const ReportInput&, std::string_view baseline = {});

}  // namespace assay
