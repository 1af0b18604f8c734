#include "report/loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "report/comparison.h"
#include "report/csv.h"
#include "report/takeaways.h"
#include "report_support.h"

namespace assay {
namespace {

using testing::HasSubstr;

// Two cells whose training losses say the reverse of their validation losses.
ReportInput validated() {
  ReportRun base = test::completed(1, "base", {140, 4.0, 1000, 1, 1, 100, 1});
  ReportRun other = test::completed(2, "other", {140, 3.0, 1000, 1, 1, 100, 1});
  base.attempts[0].steps.back().val_loss = 4.5;
  other.attempts[0].steps.back().val_loss = 5.0;
  return test::make_input({base, other});
}

std::string comparison(const ReportInput& input) {
  const auto cells = report_cells(input);
  return comparison_section(cells, cells.front()) + takeaways_section(input, cells, cells.front());
}

TEST(ReportLoss, IsTheValidationLossWhereEveryRunMeasuredIt) {
  const std::string text = comparison(validated());
  EXPECT_THAT(text, HasSubstr("| ratio | speed_verdict | val_loss | loss_diff | loss_verdict |"));
  EXPECT_THAT(text, HasSubstr("| no repeats | 5.0000 | +0.5000 | no repeats |"));
  EXPECT_THAT(text, HasSubstr("\n`val_loss` is the validation loss after the last step of a run.\n"));
  EXPECT_THAT(text, HasSubstr("- Validation loss after 140 steps: from 4.5000 (`base`) to 5.0000 (`other`), a gap of "
                              "0.5000 (11.11 %).\n"));
}

TEST(ReportLoss, IsTheTrainingLossOfAllWhereOneHasNoValidation) {
  ReportInput input = validated();
  input.runs[1].attempts[0].steps.back().val_loss = std::nan("");
  const std::string text = comparison(input);
  EXPECT_THAT(text, HasSubstr("| tail50_loss | loss_diff |"));
  EXPECT_THAT(text, HasSubstr("| no repeats | 3.0000 | -1.0000 | no repeats |"));
  EXPECT_THAT(text, HasSubstr("\n`tail50_loss` is the training loss, the mean of a run's last 50 steps. The validation "
                              "loss is not compared: `other` has not measured it (`train.val_every`).\n"));
  EXPECT_THAT(text, HasSubstr("- Training loss after 140 steps, mean of the last 50 steps: from 3.0000 (`other`)"));
}

TEST(ReportLoss, ValidationOnMoreOrLessTextOrBeforeTheEndIsNotCompared) {
  ReportInput input = validated();
  input.runs[1].config.train.val_tokens *= 2;
  EXPECT_THAT(comparison(input), HasSubstr("the runs have measured it on different numbers of tokens"));
  input = validated();
  std::swap(input.runs[1].attempts[0].steps[48].val_loss, input.runs[1].attempts[0].steps[49].val_loss);
  EXPECT_THAT(comparison(input), HasSubstr("`other` has not measured it"));
}

TEST(ReportLoss, OneNoisyStepDoesNotDecide) {
  ReportInput input = validated();
  for (ReportRun& run : input.runs) run.attempts[0].steps.back().val_loss = std::nan("");
  input.runs[1].attempts[0].steps.back().loss = 8.0;  // (49 x 3 + 8) / 50
  EXPECT_THAT(comparison(input), HasSubstr("| 3.1000 | -0.9000 |"));
}

TEST(ReportLoss, AShortRunsMeanIsOfAllItsSteps) {
  const ReportRun run = test::completed(1, "short", {40, 4.0, 1000, 1, 1, 100, 1});
  EXPECT_EQ(run_loss(run, LossKind::training).steps, 40);
  EXPECT_THAT(comparison(test::make_input({run})), HasSubstr("the mean of a run's last 40 steps."));
}

// Steps 90 to 99 are of the first attempt (loss 6), 100 to 139 of the one that was resumed at its checkpoint (loss 4);
// what the first made after the checkpoint (loss 9) is lost: (10 x 6 + 40 x 4) / 50.
TEST(ReportLoss, AResumedRunsMeanGoesBackBeforeItsCheckpoint) {
  ReportRun run = test::completed(1, "resumed", {140, 4.0, 1000, 1, 1, 100, 1});
  ReportAttempt first = test::failed_attempt(1, FailureReason::crashed, "killed", {120});
  first.steps.clear();
  for (int64_t step = 0; step < 120; ++step) first.steps.push_back({.step = step, .loss = step < 100 ? 6.0 : 9.0});
  ReportAttempt& second = run.attempts[0];
  second.attempt.n = 2;
  second.attempt.resumed_from_step = 100;
  second.steps.erase(second.steps.begin(), second.steps.begin() + 10);
  run.attempts.insert(run.attempts.begin(), first);
  EXPECT_EQ(run_loss(run, LossKind::training).steps, 50);
  EXPECT_DOUBLE_EQ(run_loss(run, LossKind::training).value, 4.4);
  const ReportInput input = test::make_input({run});
  EXPECT_THAT(comparison(input), HasSubstr("| 4.4000 |"));
  EXPECT_THAT(summary_csv(input), testing::ContainsRegex("\nresumed,completed,[^\n]*,4\\.4,,,2,"))
      << "the run's one tail50_loss";
  // Resumed with nothing left to do: its end is the first attempt's.
  run.run.total_steps = 100;
  run.attempts[0].steps[99].val_loss = 5.5;
  run.attempts[1].steps.clear();
  EXPECT_DOUBLE_EQ(run_loss(run, LossKind::training).value, 6.0);
  EXPECT_DOUBLE_EQ(run_loss(run, LossKind::validation).value, 5.5);
}

}  // namespace
}  // namespace assay
