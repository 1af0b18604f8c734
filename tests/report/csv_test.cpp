#include "report/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "report_support.h"
#include "spec/step_text.h"

namespace assay {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// A reader of RFC 4180, written apart from the writer.
std::vector<std::vector<std::string>> read_csv(const std::string& text) {
  std::vector<std::vector<std::string>> rows(1, std::vector<std::string>(1));
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '"' && i + 1 < text.size() && text[i + 1] == '"')
        rows.back().back() += text[++i];
      else if (c == '"')
        quoted = false;
      else
        rows.back().back() += c;
    } else if (c == '"')
      quoted = true;
    else if (c == ',')
      rows.back().emplace_back();
    else if (c == '\n')
      rows.emplace_back(1);
    else
      rows.back().back() += c;
  }
  rows.pop_back();  // after the last line break
  return rows;
}

TEST(ReportCsv, SummaryHasTheColumnsOfTheTableFirst) {
  const std::string csv = summary_csv(test::reference_input());
  EXPECT_THAT(
      csv,
      StartsWith("run,status,steps_observed,last_step,last_loss,tail50_tok/sec,tail50_mfu,tail50_dt_ms,peak_mem_mib,"
                 "total_time_min,tail50_loss,val_loss,reason,attempt,repeat,seed,precision,execution,"));
  EXPECT_THAT(csv, HasSubstr("\nmoe_fp8_noexperts_static,completed,140,139,4.6716,982070,11.88,537.8,23231.91,1.59,4."
                             "6716,,,1,1,1,fp8_noexperts,static,140,"));
  EXPECT_THAT(
      csv, HasSubstr("\nmoe_fp8_experts_static.fail1,failed,1,0,10.3978,40703,0.49,12880.8,,,10.3978,,plan_error,1,"));
}

TEST(ReportCsv, StepsHaveFullPrecisionAndTheNameOfTheTable) {
  ReportInput input = test::make_input({test::reference_input().runs[1]});
  input.runs[0].attempts[0].steps = {{.step = 0, .loss = 10.397812345678, .dt_ms = 0.5, .val_loss = 10.25}};
  input.runs[0].attempts[1].steps = {{.step = 3, .loss = std::nan(""), .tokens = 65536, .flops = 2.5e18}};
  std::string expected = steps_csv_header();
  append_steps_csv(expected, "moe_fp8_experts_static.fail1", 1, input.runs[0].attempts[0].steps[0]);
  append_steps_csv(expected, "moe_fp8_experts_static", 2, input.runs[0].attempts[1].steps[0]);
  EXPECT_EQ(steps_csv(input), expected);
  EXPECT_THAT(expected, HasSubstr("\nmoe_fp8_experts_static.fail1,1,0,10.397812345678,0.5,0,0,0,0,0,0,0,10.25,0,,"));
  EXPECT_THAT(expected, HasSubstr("\nmoe_fp8_experts_static,2,3,nan,0,0,0,0,0,0,0,0,,0,65536,2.5e+18"));
}

// Whatever a name or an error holds, a reader of the standard gets it back and no row is torn.
TEST(ReportCsv, AnyTextSurvives) {
  std::mt19937 random(7);
  const std::string letters = "ab,\"\n\r|';\t\\=\xc3\xa9";
  for (int round = 0; round < 200; ++round) {
    const auto text = [&] {
      std::string t;
      for (size_t n = random() % 12; n > 0; --n) t += letters[random() % letters.size()];
      return t;
    };
    ReportRun run = test::make_run(1, text(), RunState::failed);
    run.attempts.push_back(test::failed_attempt(1, FailureReason::internal, text(), {1, 2.0}));
    run.attempts[0].attempt.log_path = text();
    run.attempts[0].steps = {{.step = 0}};
    const ReportInput input = test::make_input({run});
    const auto rows = read_csv(summary_csv(input));
    ASSERT_EQ(rows.size(), 2u);
    ASSERT_EQ(rows[1].size(), rows[0].size());
    EXPECT_EQ(rows[1].front(), run.run.name);
    EXPECT_EQ(rows[1].back(), run.attempts[0].attempt.log_path);
    const auto steps = read_csv(steps_csv(input));
    ASSERT_EQ(steps.size(), 2u);
    ASSERT_EQ(steps[1].size(), steps[0].size());
    EXPECT_EQ(steps[1][0], run.run.name);
  }
}

}  // namespace
}  // namespace assay
