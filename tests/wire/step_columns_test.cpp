#include "wire/step_columns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "tests/support/step_values.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

v1::StepColumns columns_of(const std::vector<StepMetrics>& steps) {
  v1::StepColumns columns;
  to_proto(steps, columns);
  return columns;
}
// As it arrives at the other end.
v1::StepColumns sent(const v1::StepColumns& columns) {
  v1::StepColumns received;
  EXPECT_TRUE(received.ParseFromString(columns.SerializeAsString()));
  return received;
}
v1::StepColumn& column(v1::StepColumns& columns, const std::string& name) {
  for (v1::StepColumn& column : *columns.mutable_columns())
    if (column.name() == name) return column;
  ADD_FAILURE() << "no column " << name;
  return *columns.add_columns();
}
void remove(v1::StepColumns& columns, const std::string& name) {
  for (int i = 0; i < columns.columns_size(); ++i)
    if (columns.columns(i).name() == name) return columns.mutable_columns()->DeleteSubrange(i, 1);
  ADD_FAILURE() << "no column " << name;
}
std::string error_of(const v1::StepColumns& columns) {
  const auto received = from_proto(columns);
  EXPECT_FALSE(received.ok());
  if (received.ok()) return "";
  EXPECT_EQ(received.error().code, ErrorCode::invalid_argument);
  return received.error().message;
}

TEST(StepColumns, EveryFieldArrivesBitForBit) {
  std::vector<StepMetrics> steps = some_steps(0, 5);
  steps.push_back({});  // what is not recorded stays so
  steps[1].loss = std::numeric_limits<double>::infinity();
  steps[2].grad_norm = -0.0;
  const auto received = from_proto(sent(columns_of(steps)));
  ASSERT_TRUE(received.ok()) << received.error().message;
  EXPECT_THAT(received->unknown, IsEmpty());
  ASSERT_EQ(received->steps.size(), steps.size());
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(bits(received->steps[i]), bits(steps[i])) << i;
  EXPECT_THAT(from_proto(sent(columns_of({})))->steps, IsEmpty());
}

TEST(StepColumns, AColumnOfANewerSenderIsNamedAndLeftOut) {
  v1::StepColumns columns = columns_of(some_steps(0, 2));
  v1::StepColumn& newer = *columns.add_columns();
  newer.set_name("zeal");
  newer.add_numbers(1);
  columns.mutable_columns()->SwapElements(0, columns.columns_size() - 1);  // the order means nothing
  const auto received = from_proto(columns);
  ASSERT_TRUE(received.ok()) << received.error().message;
  EXPECT_THAT(received->unknown, ElementsAre("zeal"));
  EXPECT_EQ(bits(received->steps.at(1)), bits(some_step(1)));
}

TEST(StepColumns, WhatAnOlderSenderLacksIsNotRecorded) {
  v1::StepColumns columns = columns_of(some_steps(0, 2));
  for (const StepField& field : step_fields)
    if (field.presence == Presence::sometimes) remove(columns, std::string(field.name));
  const auto received = from_proto(columns);
  ASSERT_TRUE(received.ok()) << received.error().message;
  for (const StepField& field : step_fields)
    EXPECT_EQ(field.is_recorded_in(received->steps.at(1)), field.presence == Presence::always) << field.name;
}

TEST(StepColumns, WhatDoesNotFitIsAnErrorThatNamesTheColumn) {
  const v1::StepColumns good = columns_of(some_steps(0, 2));
  v1::StepColumns columns = good;
  remove(columns, "loss");
  EXPECT_EQ(error_of(columns), "steps: column \"loss\" is missing");
  columns = good;
  column(columns, "mfu").add_numbers(1);
  EXPECT_EQ(error_of(columns), "steps: column \"mfu\" has 3 values for 2 steps");
  columns = good;
  column(columns, "mfu").add_integers(1);
  EXPECT_EQ(error_of(columns), "steps: column \"mfu\" holds integers");
  columns = good;
  column(columns, "step").add_numbers(1);
  EXPECT_EQ(error_of(columns), "steps: column \"step\" holds floats");
  columns = good;
  *columns.add_columns() = good.columns(3);
  EXPECT_THAT(error_of(columns), HasSubstr("\" comes twice"));
  columns = good;
  columns.set_steps(int64_t{1} << 60);  // before memory is taken for them
  EXPECT_THAT(error_of(columns), HasSubstr("has 2 values for 1152921504606846976 steps"));
  columns.clear_columns();
  EXPECT_EQ(error_of(columns), "steps: column \"step\" is missing");
}

TEST(StepColumns, AMessageOfStepsIsFarBelowTheLimit) {
  std::vector<StepMetrics> steps = some_steps(0, limits::steps_per_message);
  for (StepMetrics& step : steps) step.tokens = -1;  // ten bytes each
  EXPECT_LT(columns_of(steps).ByteSizeLong(), limits::steps_per_message * 10 * std::size(step_fields) + 1'000);
  EXPECT_LT(columns_of(steps).ByteSizeLong(), limits::message_bytes / 100u);
}

}  // namespace
}  // namespace assay
