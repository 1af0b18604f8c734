#include "base/csv.h"

#include <gtest/gtest.h>

#include <limits>

namespace assay {
namespace {

TEST(Csv, FieldsAreQuotedOnlyWhereNeeded) {
  EXPECT_EQ(csv_field(""), "");
  EXPECT_EQ(csv_field("plain 'text'; é"), "plain 'text'; é");
  EXPECT_EQ(csv_field("a,b"), "\"a,b\"");
  EXPECT_EQ(csv_field("say \"x\""), "\"say \"\"x\"\"\"");
  EXPECT_EQ(csv_field("two\r\nlines"), "\"two\r\nlines\"");
}

TEST(Csv, NumbersReadBackTheSame) {
  for (const double value : {0.1, -0.0, 1e-300, 4.6716, 982070.0, 1.0 / 3})
    EXPECT_EQ(std::stod(csv_number(value)), value);
  EXPECT_EQ(csv_number(982070), "982070");
  EXPECT_EQ(csv_number(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(csv_number(-std::numeric_limits<double>::infinity()), "-inf");
}

}  // namespace
}  // namespace assay
