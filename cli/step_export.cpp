#include "cli/step_export.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "cli/output.h"
#include "cli/run_rows.h"
#include "spec/step_text.h"
#include "wire/step_columns.h"

namespace assay {

Status StepPages::each(const v1::Run& run, int64_t attempt,
                       const std::function<void(int64_t, const StepMetrics&)>& sink) {
  v1::QueryMetricsRequest request;
  request.set_name(full_name(run));
  request.set_attempt(attempt);
  while (true) {
    ASSAY_ASSIGN(const v1::QueryMetricsResponse page, client_.call(&Rpc::QueryMetrics, request));
    if (!page.has_columns())
      return Error{ErrorCode::failed_precondition,
                   "the daemon is of another version of Assay and sends steps otherwise; `assay down` ends it, `assay "
                   "up` starts the one of this version"};
    ASSAY_ASSIGN(const ReceivedSteps received, from_proto(page.columns()));
    for (const std::string& name : received.unknown)
      if (unknown_.insert(name).second)
        remark(context_, fmt::format("the daemon is newer and sends a column \"{}\", which is left out", name));
    for (const StepMetrics& metrics : received.steps) sink(page.attempt(), metrics);
    if (!page.more()) return {};
    if (received.steps.empty())
      return Error{ErrorCode::internal, fmt::format("the daemon has more steps of {} but sends none", run.name())};
    request.set_from_step(received.steps.back().step + 1);
    request.set_attempt(page.attempt());  // a retry that starts meanwhile must not mix its steps in
  }
}

Status write_steps_csv(Context& context, Client& client, const std::string& experiment, std::ostream& out) {
  v1::ListRunsRequest request;
  request.mutable_selector()->set_tag(experiment);
  ASSAY_ASSIGN(const v1::ListRunsResponse list, client.list_runs(request));
  std::vector<v1::Run> runs(list.runs().begin(), list.runs().end());
  std::sort(runs.begin(), runs.end(), [](const v1::Run& a, const v1::Run& b) { return a.id() < b.id(); });
  out << steps_csv_header();
  StepPages pages(context, client);
  for (const v1::Run& listed : runs) {
    v1::GetRunRequest one;
    one.set_name(full_name(listed));
    ASSAY_ASSIGN(const v1::Run run, client.call(&Rpc::GetRun, one));
    for (const v1::Attempt& attempt : run.attempts()) {
      const std::string name = attempt_name(run, attempt);
      ASSAY_TRY(pages.each(run, attempt.n(), [&](int64_t n, const StepMetrics& metrics) {
        std::string line;
        append_steps_csv(line, name, n, metrics);
        out << line;
      }));
    }
  }
  return {};
}

}  // namespace assay
