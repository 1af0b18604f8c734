// What of the CUDA kernels' tiling is plain arithmetic. That no choice changes a result is tested on a GPU.
#include "engine/ops/cuda/tiling.h"

#include <gmock/gmock.h>

#include <set>

#include "engine/ops/backend.h"

namespace assay::cuda {
namespace {

using ::testing::ElementsAre;

constexpr int64_t columns_per_vector = 8;

TEST(Tiling, EveryRowFitsIntoItsThreads) {
  for (const bool by_width : {true, false}) {
    for (int64_t d = columns_per_vector; d <= max_row; d += columns_per_vector) {
      const RowShape s = row_shape(d, by_width);
      ASSERT_GE(s.threads * s.chunks * columns_per_vector, d) << d << (by_width ? " by width" : " fixed");
      ASSERT_EQ(128 % s.threads, 0) << d;
    }
    EXPECT_EQ(row_shape(max_row + columns_per_vector, by_width), RowShape{});
  }
}

TEST(Tiling, ByWidthARowTakesNoMoreThreadsThanItFills) {
  EXPECT_EQ(row_shape(128, true), (RowShape{32, 1}));
  EXPECT_EQ(row_shape(768, true), (RowShape{32, 3}));
  EXPECT_EQ(row_shape(1536, true), (RowShape{64, 3}));
  EXPECT_EQ(row_shape(4096, true), (RowShape{128, 4}));
}

TEST(Tiling, TheFixedOneHasBlocksOf128ThreadsForEveryShape) {
  for (int64_t d = columns_per_vector; d <= max_row; d += columns_per_vector)
    ASSERT_EQ(row_shape(d, fixed_tiling.by_width).threads, 128) << d;
  for (const Knob& k : knobs) EXPECT_EQ(fixed_tiling.*k.value, k.value == &Tiling::route_rows ? 1 : 4) << k.name;
}

TEST(Tiling, RowsOfTheRouterDependOnWidthAndExpertsUnlessSaid) {
  EXPECT_EQ(route_rows(768, 8, true, 0), 2);
  EXPECT_EQ(route_rows(768, 64, true, 0), 4);
  EXPECT_EQ(route_rows(768, 64, false, 0), 2);
  EXPECT_EQ(route_rows(1536, 8, true, 0), 2);
  EXPECT_EQ(route_rows(1536, 8, false, 0), 1);
  EXPECT_EQ(route_rows(4096, 8, true, 0), 1);
  EXPECT_EQ(route_rows(4096, 8, false, 0), 0) << "the router takes FP32 rows of up to 1536 columns";
  EXPECT_EQ(route_rows(768, 8, true, 1), 1);
  EXPECT_EQ(route_rows(768, 8, true, 4), 4);
  EXPECT_EQ(route_rows(1536, 8, true, 4), 2) << "no more than there are registers for";
}

TEST(Tiling, ACandidateMustBeTwoPercentFasterThanTheFirst) {
  EXPECT_EQ(fastest({100, 100, 100}), 0u);
  EXPECT_EQ(fastest({100, 98.5, 99}), 0u);
  EXPECT_EQ(fastest({100, 97.9, 101}), 1u);
  EXPECT_EQ(fastest({100, 97, 90}), 2u);
}

TEST(Tiling, EveryKnobBeginsWithWhatHoldsWithoutMeasuring) {
  for (const Knob& k : knobs) {
    EXPECT_EQ(k.candidates[0], Tiling{}.*k.value) << k.name;
    EXPECT_EQ(std::set(k.candidates.begin(), k.candidates.end()).size(), k.candidates.size()) << k.name;
    if (k.value == &Tiling::route_rows) continue;
    for (const int warps : k.candidates) EXPECT_TRUE(warps >= 1 && warps <= k.candidates[0]) << k.name;
  }
}

// Whatever was measured, what decides the order of sums stays a function of shape.
TEST(Tiling, MeasuringTurnsItsKnobsAndNothingElse) {
  std::vector<KnobTimes> times;
  for (const Knob& k : knobs) times.push_back({&k, {100, 50, 100}});
  const Tiling t = chosen_tiling(times);
  EXPECT_TRUE(t.by_width);
  EXPECT_THAT((std::array{t.norm_warps, t.route_rows, t.route_warps, t.rope_warps, t.rope_grad_warps, t.permute_warps}),
              ElementsAre(2, 1, 2, 4, 4, 4));
  const Tiling unmeasured = chosen_tiling({});
  for (const Knob& k : knobs) EXPECT_EQ(unmeasured.*k.value, Tiling{}.*k.value) << k.name;
}

TEST(Tiling, TheCpuBackendHasNone) {
  EXPECT_EQ(make_cpu_ops()->choose_tiling({}), "");
}

}  // namespace
}  // namespace assay::cuda
