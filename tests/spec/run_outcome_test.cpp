#include "spec/run_outcome.h"

#include <gtest/gtest.h>

#include <csignal>

namespace assay {
namespace {

std::string facts_of(const AttemptOutcome& outcome) {
  std::string text;
  for (const OutcomeFact& fact : failure_facts(outcome)) text += std::string(fact.name) + "=" + fact.value + ";";
  return text;
}

TEST(RunOutcome, OneLineSaysHowItEnded) {
  EXPECT_EQ(outcome_text({.result = AttemptResult::completed}), "completed");
  EXPECT_EQ(outcome_text({.result = AttemptResult::stopped, .error = "stopped with its worker"}), "stopped");
  EXPECT_EQ(outcome_text({.result = AttemptResult::failed, .reason = FailureReason::stalled}), "failed: stalled");
  EXPECT_EQ(outcome_text({.result = AttemptResult::failed, .reason = FailureReason::crashed, .error = "one\ntwo"}),
            "failed: crashed: one");
  EXPECT_EQ(failure_text("crashed", "one\r\ntwo"), "crashed: one");
}

TEST(RunOutcome, AnErrorHasAHeadlineAndDetails) {
  EXPECT_EQ(error_headline("one\r\ntwo\nthree"), "one");
  EXPECT_EQ(error_details("one\r\ntwo\nthree"), "two\nthree");
  EXPECT_EQ(error_headline("alone"), "alone");
  EXPECT_EQ(error_details("alone"), "");
  EXPECT_EQ(error_details("one\n"), "");
}

TEST(RunOutcome, FactsNameTheSignalOrTheExitCode) {
  EXPECT_EQ(facts_of({}), "step=before the first;");
  EXPECT_EQ(facts_of({.operation = "gemm", .tensor = "w", .step = 12, .exit_code = 3}),
            "operation=gemm;tensor=w;step=12;exit code=3;");
  EXPECT_EQ(facts_of({.step = 0, .signal = SIGSEGV}), "step=0;signal=SIGSEGV (Segmentation fault);");
  EXPECT_EQ(facts_of({.signal = 999}), "step=before the first;signal=signal 999;");
}

}  // namespace
}  // namespace assay
