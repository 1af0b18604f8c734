#include "spec/step_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/csv.h"
#include "spec/step_text.h"
#include "tests/support/step_values.h"

namespace assay {
namespace {

using testing::StartsWith;

TEST(StepMetrics, NamesAreDistinctAndFoundAgain) {
  std::set<std::string_view> names;
  for (const StepField& field : step_fields) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_EQ(find_step_field(field.name), &field);
  }
  EXPECT_EQ(find_step_field("no_such_field"), nullptr);
}

TEST(StepMetrics, WhatIsSometimesThereBeginsAsNotRecorded) {
  const StepMetrics none;
  for (const StepField& field : step_fields)
    EXPECT_EQ(field.is_recorded_in(none), field.presence == Presence::always) << field.name;
  EXPECT_TRUE(std::isnan(none.val_loss));
  EXPECT_EQ(none.tokens, -1);
  EXPECT_TRUE(std::isnan(none.flops));
  for (const StepField& field : step_fields) EXPECT_TRUE(field.is_recorded_in(some_step(3))) << field.name;
}

TEST(StepMetrics, CsvHasEveryFieldAndLeavesEmptyWhatWasNotRecorded) {
  // A column is never moved; later ones come behind.
  EXPECT_THAT(
      steps_csv_header(),
      StartsWith("run,attempt,step,loss,dt_ms,tok_per_sec,mfu,lr_scale,grad_norm,expert_load_min,expert_load_max,"
                 "peak_mem_mib,val_loss,unix_ms,tokens,flops"));
  std::string csv;
  append_steps_csv(csv, "a,b", 2, {.step = 3, .loss = std::nan(""), .dt_ms = 0.5, .unix_ms = 1'771'948'186'123});
  EXPECT_THAT(csv, StartsWith("\"a,b\",2,3,nan,0.5,0,0,0,0,0,0,0,,1771948186123,,"));
  csv.clear();
  append_steps_csv(csv, "a", 1, {.val_loss = 2.5, .tokens = 9'007'199'254'740'993, .flops = 1.25e21});
  EXPECT_THAT(csv, StartsWith("a,1,0,0,0,0,0,0,0,0,0,0,2.5,0,9007199254740993," + csv_number(1.25e21)));
  EXPECT_EQ(csv.back(), '\n');
}

}  // namespace
}  // namespace assay
