// Report inputs made by hand.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "report/report.h"

namespace assay::test {

inline constexpr int64_t second = 1000;
// 2026-02-24 16:34:07 UTC; the tests set the time zone to UTC.
inline constexpr int64_t generated_at = 1771950847ll * second;

inline ReportRun make_run(int64_t id, std::string name, RunState state, int64_t steps = 140) {
  ReportRun run;
  run.run.id = id;
  run.run.name = std::move(name);
  run.run.cell_key = run.run.name;
  run.run.state = state;
  run.run.seed = 1;
  run.run.total_steps = steps;
  run.config.train.steps = steps;
  return run;
}

struct Numbers {
  int64_t steps = 140;
  double loss = 0;  // of each of the last 50 steps
  double tok_per_sec = 0;
  double mfu = 0;
  double dt_ms = 0;
  double peak_mib = 0;
  double minutes = 0;  // 0 = not known
};

inline ReportAttempt make_attempt(int64_t n, AttemptResult result, const Numbers& v) {
  ReportAttempt a;
  a.attempt.id = n;
  a.attempt.n = n;
  a.attempt.state = result == AttemptResult::none ? AttemptState::running : AttemptState::ended;
  a.attempt.outcome.result = result;
  if (v.minutes > 0 || result == AttemptResult::none) a.attempt.started_at = generated_at - 600 * second;
  if (v.minutes > 0) a.attempt.finished_at = a.attempt.started_at + std::llround(v.minutes * 60 * second);
  a.summary.steps_observed = v.steps;
  a.summary.last_step = v.steps - 1;
  a.summary.last_loss = v.loss;
  a.summary.tail50_loss = v.loss;
  a.summary.tail50_tok_per_sec = v.tok_per_sec;
  a.summary.tail50_mfu = v.mfu;
  a.summary.tail50_dt_ms = v.dt_ms;
  a.summary.peak_mem_mib = v.peak_mib;
  a.summary.last_val_loss = std::numeric_limits<double>::quiet_NaN();
  for (int64_t step = std::max<int64_t>(0, v.steps - tail_steps); step < v.steps; ++step)
    a.steps.push_back({.step = step, .loss = v.loss});
  return a;
}

inline ReportRun completed(int64_t id, std::string name, const Numbers& v) {
  ReportRun run = make_run(id, std::move(name), RunState::completed, v.steps);
  run.attempts.push_back(make_attempt(1, AttemptResult::completed, v));
  return run;
}

inline ReportAttempt failed_attempt(int64_t n, FailureReason reason, std::string error, const Numbers& v) {
  ReportAttempt a = make_attempt(n, AttemptResult::failed, v);
  a.attempt.outcome.reason = reason;
  a.attempt.outcome.error = std::move(error);
  a.attempt.outcome.step = v.steps;
  a.attempt.outcome.exit_code = 3;
  return a;
}

inline ReportInput make_input(std::vector<ReportRun> runs) {
  ReportInput input;
  input.experiment.name = "moe-fp8-compile-ablation";
  input.experiment.tag = "20260224_162523";
  input.now = generated_at;
  input.home = "/home/me/.local/state/assay";
  input.runs = std::move(runs);
  return input;
}

// The experiment of the reference report: same names, same numbers.
inline ReportInput reference_input() {
  const auto fail = [](const char* error, double tok, double mfu, double dt) {
    return failed_attempt(1, FailureReason::plan_error, error, {1, 10.3978, tok, mfu, dt});
  };
  const auto set = [](ReportRun& run, Precision precision, Execution execution) {
    run.config.precision = precision;
    run.config.execution = execution;
  };
  std::vector<ReportRun> runs;
  runs.push_back(completed(1, "moe_fp8_noexperts_static", {140, 4.6716, 982070, 11.88, 537.8, 23231.91, 1.59}));
  set(runs.back(), Precision::fp8_noexperts, Execution::static_graph);
  runs.push_back(completed(2, "moe_fp8_experts_static", {140, 4.6735, 475081, 5.75, 1104.4, 22790.56, 2.54}));
  set(runs.back(), Precision::fp8_experts, Execution::static_graph);
  runs.back().attempts.insert(runs.back().attempts.begin(),
                              fail("InductorError: out of registers", 40703, 0.49, 12880.8));
  runs.back().attempts.back().attempt.n = 2;
  runs.push_back(make_run(3, "moe_fp8_experts_dynamic", RunState::failed));
  runs.back().attempts.push_back(
      fail("InductorError: AssertionError: -859663773703483/1000000000000000", 12912, 0.16, 40602.2));
  set(runs.back(), Precision::fp8_experts, Execution::dynamic_graph);
  runs.push_back(completed(4, "moe_fp8_experts_nocompile", {140, 4.6738, 367435, 4.45, 1427.6, 22867.05, 3.23}));
  set(runs.back(), Precision::fp8_experts, Execution::eager);
  runs.push_back(completed(5, "moe_bf16_experts_dynamic", {140, 4.6605, 947987, 11.47, 556.6, 21107.20, 1.71}));
  runs.push_back(make_run(6, "moe_fp8_dynamic_noexpertfp8_long", RunState::running, 360));
  runs.back().attempts.push_back(make_attempt(1, AttemptResult::none, {251, 3.6994, 934082, 11.30, 565.3, 20980}));
  set(runs.back(), Precision::fp8_noexperts, Execution::dynamic_graph);
  runs.push_back(completed(7, "moe_fp8_experts_dynamic_retry2", {140, 4.6724, 781338, 9.45, 673.0, 19669.95, 1.64}));
  set(runs.back(), Precision::fp8_experts, Execution::dynamic_graph);
  runs.push_back(completed(8, "moe_fp8_experts_dynamic_long", {360, 3.5310, 799038, 9.67, 657.4, 19665.65, 4.08}));
  set(runs.back(), Precision::fp8_experts, Execution::dynamic_graph);
  return make_input(std::move(runs));
}

}  // namespace assay::test
