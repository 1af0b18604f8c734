#include "report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace assay {
namespace {

// Published table of Student's t, two-sided 95 %.
TEST(Statistics, QuantilesAreThoseOfTheTable) {
  EXPECT_NEAR(t_quantile_975(1), 12.706, 5e-4);
  EXPECT_NEAR(t_quantile_975(2), 4.303, 5e-4);
  EXPECT_NEAR(t_quantile_975(4), 2.776, 5e-4);
  EXPECT_NEAR(t_quantile_975(30), 2.042, 5e-4);
  EXPECT_NEAR(t_quantile_975(1'000'000), 1.960, 5e-4);
}

TEST(Statistics, EstimateIsMeanAndHalfWidth) {
  const Estimate e = estimate({10, 12, 14});  // s = 2
  EXPECT_EQ(e.n, 3u);
  EXPECT_DOUBLE_EQ(e.mean, 12);
  EXPECT_NEAR(e.half_width, 4.3027 * 2 / std::sqrt(3.0), 1e-3);
}

TEST(Statistics, OneValueHasNoIntervalAndNothingNoMean) {
  EXPECT_FALSE(estimate({5}).has_interval());
  EXPECT_DOUBLE_EQ(estimate({5}).mean, 5);
  EXPECT_EQ(estimate({}).n, 0u);
}

TEST(Statistics, ValuesThatAreNotFiniteAreLeftOutAndCounted) {
  const Estimate e = estimate({1, std::nan(""), 3, std::numeric_limits<double>::infinity()});
  EXPECT_EQ(e.n, 2u);
  EXPECT_DOUBLE_EQ(e.mean, 2);
  EXPECT_EQ(e.not_finite, 2u);
}

TEST(Statistics, OrderNeedsIntervalsThatAreApart) {
  const Estimate low = estimate({10.0, 10.1});
  const Estimate high = estimate({20.0, 20.1});
  const Estimate wide = estimate({8.0, 22.0});
  EXPECT_EQ(compare(low, high), Order::less);
  EXPECT_EQ(compare(high, low), Order::greater);
  EXPECT_EQ(compare(low, wide), Order::not_distinguishable);
  EXPECT_EQ(compare(low, estimate({30})), Order::no_repeats);
  EXPECT_EQ(compare(low, estimate({})), Order::unknown);
}

// A repeat that diverged must not leave a verdict about the others standing as one about the cell.
TEST(Statistics, ThereIsNoOrderWithAValueThatIsNotFinite) {
  const Estimate high = estimate({20.0, 20.1});
  EXPECT_EQ(compare(estimate({10.0, 10.1, std::nan("")}), high), Order::not_finite);
  EXPECT_EQ(compare(high, estimate({std::nan("")})), Order::not_finite);
}

TEST(Statistics, EqualRepeatsHaveAnIntervalOfNoWidth) {
  const Estimate same = estimate({3, 3});
  EXPECT_TRUE(same.has_interval());
  EXPECT_DOUBLE_EQ(same.half_width, 0);
  EXPECT_EQ(compare(same, same), Order::not_distinguishable);
}

}  // namespace
}  // namespace assay
