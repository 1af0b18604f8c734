#include "report/load.h"

#include <algorithm>

#include "db/metric_store.h"
#include "db/run_store.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

Result<ReportRun> load_run(RunStore& runs, MetricStore& metrics, int64_t run_id) {
  ReportRun loaded;
  ASSAY_ASSIGN(ListedRun listed, runs.get_run_by_id(run_id));  // complete, with its config
  loaded.run = std::move(listed.run);
  loaded.config = parse_run_config(loaded.run.config_toml, "run.toml").config;
  ASSAY_ASSIGN(std::vector<AttemptRow> attempts, runs.attempts_of(run_id));
  for (AttemptRow& attempt : attempts) {
    ReportAttempt one;
    ASSAY_ASSIGN(one.summary, metrics.summary(attempt.id));
    ASSAY_ASSIGN(one.steps, metrics.query(attempt.id, 0, 0));
    one.attempt = std::move(attempt);
    loaded.attempts.push_back(std::move(one));
  }
  return loaded;
}

}  // namespace

Result<ReportInput> load_report(RunStore& runs, MetricStore& metrics, const std::string& tag, int64_t now,
                                const std::string& home) {
  ReportInput input;
  input.now = now;
  input.home = home;
  ASSAY_ASSIGN(input.experiment, runs.find_experiment(tag));
  ASSAY_ASSIGN(input.queue_held, runs.queue_held());
  RunFilter filter;
  filter.experiment_id = input.experiment.id;
  ASSAY_ASSIGN(std::vector<ListedRun> listed, runs.list_runs(filter));
  // The order in which they were queued, whatever happened since: a report's rows must not move from hour to hour.
  std::sort(listed.begin(), listed.end(), [](const ListedRun& a, const ListedRun& b) { return a.run.id < b.run.id; });
  for (const ListedRun& run : listed) {
    ASSAY_ASSIGN(ReportRun loaded, load_run(runs, metrics, run.run.id));
    input.runs.push_back(std::move(loaded));
  }
  return input;
}

}  // namespace assay
