#include "cli/step_export.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/csv.h"
#include "cli/run_rows.h"

namespace assay {

const char* const steps_csv_header =
    "run,attempt,step,loss,dt_ms,tok_per_sec,mfu,lr_scale,grad_norm,expert_load_min,expert_load_max,peak_mem_mib,"
    "val_loss\n";

void write_csv_step(std::ostream& out, const std::string& name, int64_t attempt, const v1::StepMetrics& m) {
  out << csv_field(name) << ',' << attempt << ',' << m.step();
  for (double value : {m.loss(), m.dt_ms(), m.tok_per_sec(), m.mfu(), m.lr_scale(), m.grad_norm(), m.expert_load_min(),
                       m.expert_load_max(), m.peak_mem_mib()})
    out << ',' << csv_number(value);
  out << ',' << (std::isnan(m.val_loss()) ? "" : csv_number(m.val_loss())) << "\n";
}

Status each_step(Client& client, const v1::Run& run, int64_t attempt,
                 const std::function<void(int64_t, const v1::StepMetrics&)>& sink) {
  v1::QueryMetricsRequest request;
  request.set_name(full_name(run));
  request.set_attempt(attempt);
  while (true) {
    ASSAY_ASSIGN(const v1::QueryMetricsResponse page, client.query_metrics(request));
    for (const v1::StepMetrics& m : page.steps()) sink(page.attempt(), m);
    if (!page.more()) return {};
    if (page.steps_size() == 0)
      return Error{ErrorCode::internal, fmt::format("the daemon has more steps of {} but sends none", run.name())};
    request.set_from_step(page.steps(page.steps_size() - 1).step() + 1);
    request.set_attempt(page.attempt());  // a retry that starts meanwhile must not mix its steps in
  }
}

Status write_steps_csv(Client& client, const std::string& experiment, std::ostream& out) {
  v1::ListRunsRequest request;
  request.mutable_selector()->set_tag(experiment);
  ASSAY_ASSIGN(const v1::ListRunsResponse list, client.list_runs(request));
  std::vector<v1::Run> runs(list.runs().begin(), list.runs().end());
  std::sort(runs.begin(), runs.end(), [](const v1::Run& a, const v1::Run& b) { return a.id() < b.id(); });
  out << steps_csv_header;
  for (const v1::Run& listed : runs) {
    v1::GetRunRequest one;
    one.set_name(full_name(listed));
    ASSAY_ASSIGN(const v1::Run run, client.get_run(one));
    for (const v1::Attempt& attempt : run.attempts()) {
      const std::string name = attempt_name(run, attempt);
      ASSAY_TRY(each_step(client, run, attempt.n(),
                          [&](int64_t n, const v1::StepMetrics& m) { write_csv_step(out, name, n, m); }));
    }
  }
  return {};
}

}  // namespace assay
