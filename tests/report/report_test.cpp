#include "report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>

#include "report_support.h"
#include "tests/support/paths.h"

namespace assay {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Report : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TZ", "UTC", 1);
    ::tzset();
  }
  static ReportFiles build(const ReportInput& input, std::string_view baseline = {}) {
    auto files = build_report(input, baseline);
    EXPECT_TRUE(files.ok()) << files.error().message;
    return *files;
  }
};

// The table of the reference report, line by line.
TEST_F(Report, RunSummaryIsThatOfTheReference) {
  EXPECT_THAT(
      build(test::reference_input()).report_md,
      HasSubstr(
          "## Run Summary\n\n"
          "| run | status | steps_observed | last_step | last_loss | tail50_tok/sec | tail50_mfu | tail50_dt_ms | "
          "peak_mem_mib | total_time_min |\n"
          "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
          "| moe_fp8_noexperts_static | completed | 140 | 139 | 4.6716 | 982070 | 11.88 | 537.8 | 23231.91 | 1.59 |\n"
          "| moe_fp8_experts_static | completed | 140 | 139 | 4.6735 | 475081 | 5.75 | 1104.4 | 22790.56 | 2.54 |\n"
          "| moe_fp8_experts_dynamic | failed | 1 | 0 | 10.3978 | 12912 | 0.16 | 40602.2 | - | - |\n"
          "| moe_fp8_experts_nocompile | completed | 140 | 139 | 4.6738 | 367435 | 4.45 | 1427.6 | 22867.05 | 3.23 |\n"
          "| moe_bf16_experts_dynamic | completed | 140 | 139 | 4.6605 | 947987 | 11.47 | 556.6 | 21107.20 | 1.71 |\n"
          "| moe_fp8_dynamic_noexpertfp8_long | running | 251 | 250 | 3.6994 | 934082 | 11.30 | 565.3 | - | - |\n"
          "| moe_fp8_experts_dynamic_retry2 | completed | 140 | 139 | 4.6724 | 781338 | 9.45 | 673.0 | 19669.95 | 1.64 "
          "|\n"
          "| moe_fp8_experts_dynamic_long | completed | 360 | 359 | 3.5310 | 799038 | 9.67 | 657.4 | 19665.65 | 4.08 "
          "|\n"
          "| moe_fp8_experts_static.fail1 | failed | 1 | 0 | 10.3978 | 40703 | 0.49 | 12880.8 | - | - |\n"));
}

// The whole page. After a wanted change: ASSAY_UPDATE_GOLDEN=1 report_tests, then read the difference.
TEST_F(Report, WholePageIsTheGoldenFile) {
  const std::string path = source_dir() + "/tests/report/golden_report.md";
  const std::string page = build(test::reference_input(), "moe_bf16_experts_dynamic").report_md;
  if (std::getenv("ASSAY_UPDATE_GOLDEN")) std::ofstream(path) << page;
  std::stringstream golden;
  golden << std::ifstream(path).rdbuf();
  EXPECT_EQ(page, golden.str());
}

TEST_F(Report, SectionsComeInOrder) {
  const std::string page = build(test::reference_input()).report_md;
  EXPECT_THAT(page, StartsWith("# moe-fp8-compile-ablation Progress\n\nGenerated at: 2026-02-24 16:34:07\n"));
  size_t from = 0;
  for (const char* title :
       {"## Run Summary", "## Queue Status", "## Comparison", "## Failures", "## Takeaways", "## Artifacts"}) {
    const size_t at = page.find(title);
    ASSERT_NE(at, std::string::npos) << title;
    EXPECT_GT(at, from) << title;
    from = at;
  }
}

TEST_F(Report, RunningNowHasItsStartTime) {
  EXPECT_THAT(build(test::reference_input()).report_md,
              HasSubstr("- Running now:\n  - `moe_fp8_dynamic_noexpertfp8_long` (360 steps, started at 2026-02-24 "
                        "16:24:07 +00:00, at step 250)\n"));
}

TEST_F(Report, WaitingRunKeepsItsFailedAttemptApart) {
  ReportRun run = test::make_run(1, "again", RunState::retry_wait);
  run.run.not_before = test::generated_at + 30 * test::second;
  run.attempts.push_back(test::failed_attempt(1, FailureReason::out_of_memory, "no memory", {3, 5.0, 10, 1, 1}));
  const std::string page = build(test::make_input({run})).report_md;
  EXPECT_THAT(
      page,
      HasSubstr("| again | retry_wait | 0 | - | - | - | - | - | - | - |\n| again.fail1 | failed | 3 | 2 | 5.0000 |"));
  EXPECT_THAT(page,
              HasSubstr("- Waiting for a retry:\n  - `again` (140 steps, not before 2026-02-24 16:34:37 +00:00)\n"));
}

TEST_F(Report, AnAttemptStoppedWithItsWorkerIsNoFailure) {
  ReportRun run = test::make_run(1, "a", RunState::completed);
  run.attempts.push_back(test::make_attempt(1, AttemptResult::stopped, {60, 5.0, 10}));
  run.attempts.push_back(test::make_attempt(2, AttemptResult::completed, {80, 4.0, 20}));
  const ReportFiles files = build(test::make_input({run}));
  EXPECT_THAT(files.report_md, HasSubstr("\nNo attempt has failed.\n"));
  EXPECT_THAT(files.report_md, HasSubstr("| a | completed | 80 | "));
  EXPECT_THAT(files.report_md + files.summary_csv + files.steps_csv, Not(HasSubstr(".fail")));
  EXPECT_THAT(files.report_md, Not(HasSubstr("after a failed attempt")));
  run.run.state = RunState::queued;  // it waits for a worker
  run.attempts.pop_back();
  EXPECT_THAT(build(test::make_input({run})).report_md,
              AllOf(HasSubstr("| a | queued | 0 | - |"), Not(HasSubstr(".fail"))));
}

TEST_F(Report, ARunThatHadNothingLeftToDoShowsWhoseNumbersItHas) {
  ReportRun run = test::make_run(1, "a", RunState::completed);
  run.attempts.push_back(test::failed_attempt(1, FailureReason::crashed, "boom", {140, 5.0, 10, 1, 1}));
  run.attempts.push_back(test::make_attempt(2, AttemptResult::completed, {0}));
  run.attempts.back().attempt.resumed_from_step = 140;
  std::string page = build(test::make_input({run})).report_md;
  EXPECT_THAT(page, HasSubstr("| a | completed | 140 | 139 | 5.0000 | 10 |"));
  EXPECT_THAT(page, HasSubstr("\n`a`: attempt 2 resumed at step 140, where nothing was left to do; the numbers are "
                              "those of attempt 1.\n"));
  run.attempts.erase(run.attempts.begin());
  page = build(test::make_input({run})).report_md;
  EXPECT_THAT(page, HasSubstr("where nothing was left to do; the steps before it are not in this store.\n"));
}

// metrics.db was lost, or is an older copy.
TEST_F(Report, ACompletedRunWithoutItsStepsDoesNotShowThoseOfAnEarlierAttempt) {
  ReportRun run = test::make_run(1, "a", RunState::completed);
  run.run.total_steps = 200;
  run.attempts.push_back(test::make_attempt(1, AttemptResult::stopped, {140, 5.0, 10}));
  run.attempts.push_back(test::make_attempt(2, AttemptResult::completed, {0}));
  run.attempts.back().attempt.resumed_from_step = 140;
  const std::string page = build(test::make_input({run})).report_md;
  EXPECT_THAT(page, HasSubstr("| a | completed | 0 | - | - | - |"));
  EXPECT_THAT(
      page, HasSubstr("\n`a`: the last steps of attempt 2 are not in this store (it has 0 of 200): its numbers are "));
  EXPECT_THAT(page, Not(HasSubstr("nothing was left to do")));
  run.attempts.back() = test::make_attempt(2, AttemptResult::completed, {100, 4.0, 10});  // an older copy has some
  EXPECT_THAT(build(test::make_input({run})).report_md, HasSubstr("(it has 100 of 200)"));
}

TEST_F(Report, NamesAndErrorsCannotBecomeMarkup) {
  ReportRun run = test::make_run(1, "odd|name`<b>", RunState::failed);
  run.attempts.push_back(
      test::failed_attempt(1, FailureReason::internal, "pipe | tick ` end\nsecond\n```\nthird", {0, 0}));
  run.attempts.back().attempt.outcome.log_tail = "a\n```\n## Not a section\n";
  const std::string page = build(test::make_input({run})).report_md;
  EXPECT_THAT(page, HasSubstr("| odd\\|name\\`\\<b\\> | failed | 0 | - |"));
  EXPECT_THAT(page, HasSubstr("- error: ``pipe | tick ` end``\n"));
  EXPECT_THAT(page, HasSubstr("````text\nsecond\n```\nthird\n````\n"));
  EXPECT_THAT(page, HasSubstr("````text\na\n```\n## Not a section\n````\n"));
}

TEST_F(Report, FailureSaysReasonStepAndHowItEnded) {
  ReportRun run = test::make_run(1, "killed", RunState::failed);
  run.attempts.push_back(test::failed_attempt(1, FailureReason::crashed, "ended by signal 11", {7, 5.0}));
  run.attempts[0].attempt.outcome.signal = 11;
  run.attempts[0].attempt.outcome.operation = "grouped_gemm";
  run.attempts[0].attempt.outcome.tensor = "blocks.0.expert.w_in";
  run.attempts[0].attempt.log_path = "/state/killed/1/log";
  EXPECT_THAT(build(test::make_input({run})).report_md,
              HasSubstr("### `killed`\n\n- attempt: 1\n- reason: `crashed`\n- error: `ended by signal 11`\n- "
                        "operation: `grouped_gemm`\n"
                        "- tensor: `blocks.0.expert.w_in`\n- step: 7\n- signal: SIGSEGV (Segmentation fault)\n- log: "
                        "`/state/killed/1/log`\n"));
}

TEST_F(Report, UnknownBaselineIsAnError) {
  const auto files = build_report(test::reference_input(), "nosuch");
  ASSERT_FALSE(files.ok());
  EXPECT_EQ(files.error().code, ErrorCode::not_found);
  EXPECT_THAT(files.error().message, HasSubstr("'nosuch'"));
}

TEST_F(Report, EmptyExperimentAndRunsWithoutStepsAreWhole) {
  EXPECT_THAT(build(test::make_input({})).report_md, HasSubstr("The experiment has no runs."));
  const std::string page = build(test::make_input({test::make_run(1, "waits", RunState::queued)})).report_md;
  EXPECT_THAT(page, HasSubstr("| waits | queued | 0 | - | - | - | - | - | - | - |"));
  EXPECT_THAT(
      page, HasSubstr("The baseline `waits` has not completed (it is queued): there is nothing to compare with yet."));
  EXPECT_THAT(page, HasSubstr("- No run has completed yet: there is nothing to conclude.\n"));
  EXPECT_THAT(page, HasSubstr("No attempt has failed."));
}

}  // namespace
}  // namespace assay
