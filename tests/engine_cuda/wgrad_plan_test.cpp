// The shares of a weight gradient, without a GPU: whatever the shape, every step of every tile belongs to one piece.
#include "engine/ops/cuda/wgrad_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace assay::cuda {
namespace {

TEST(WgradPlan, CoversEveryStepOnceAndNumbersTheContributors) {
  int plans = 0;
  for (const int multiprocessors : {132, 114, 78}) {
    for (int tiles = 1; tiles <= multiprocessors; ++tiles) {
      for (const int64_t steps : {1, 40, 47, 93, 128, 513, 1024, 4000}) {
        const WgradPlan plan = plan_wgrad(tiles, steps, multiprocessors);
        if (plan.chunks == 0) continue;
        ++plans;
        SCOPED_TRACE(std::to_string(multiprocessors) + " multiprocessors, tiles " + std::to_string(tiles) + ", steps " +
                     std::to_string(steps));
        ASSERT_LE(plan.blocks(), multiprocessors);
        std::vector<std::vector<int>> covered(static_cast<size_t>(tiles), std::vector<int>(static_cast<size_t>(steps)));
        std::vector<std::set<int>> slots(static_cast<size_t>(tiles));
        for (int block = 0; block < plan.blocks(); ++block) {
          WgradPiece piece;
          for (WgradPieces pieces(plan, block); pieces.next(&piece);) {
            ASSERT_TRUE(slots.at(static_cast<size_t>(piece.tile)).insert(piece.slot).second);
            for (int k = 0; k < piece.steps; ++k)
              ++covered[static_cast<size_t>(piece.tile)].at(static_cast<size_t>(piece.first + k));
          }
        }
        for (int tile = 0; tile < tiles; ++tile) {
          const auto& of_tile = slots[static_cast<size_t>(tile)];
          ASSERT_EQ(static_cast<int>(of_tile.size()), plan.contributors(tile));
          ASSERT_EQ(*of_tile.begin(), 0);
          ASSERT_EQ(*of_tile.rbegin(), plan.contributors(tile) - 1);
          ASSERT_LE(plan.contributors(tile), plan.slots());
          for (const int times : covered[static_cast<size_t>(tile)]) ASSERT_EQ(times, 1);
        }
      }
    }
  }
  EXPECT_GT(plans, 500);
}

TEST(WgradPlan, BlocksOfTheReferenceModelWorkEquallyLong) {
  for (const int tiles : {18, 24, 54}) {  // 768x768, 768x1024, 2304x768 in tiles of 128x256
    const WgradPlan plan = plan_wgrad(tiles, 512, 132);
    ASSERT_EQ(plan.blocks(), 132) << tiles;
    int longest = 0;
    for (int block = 0; block < plan.blocks(); ++block) {
      int steps = 0;
      WgradPiece piece;
      for (WgradPieces pieces(plan, block); pieces.next(&piece);) steps += piece.steps;
      longest = std::max(longest, steps);
    }
    EXPECT_LE(longest, 1.03 * tiles * 512 / 132) << tiles;
  }
}

TEST(WgradPlan, LeavesManyTilesAndShortSumsToTheTurnstile) {
  EXPECT_EQ(plan_wgrad(192, 128, 132).chunks, 0);
  EXPECT_EQ(plan_wgrad(67, 512, 132).chunks, 0);
  EXPECT_EQ(plan_wgrad(24, 39, 132).chunks, 0);
  EXPECT_EQ(plan_wgrad(24, 40, 132).chunks, 5);
}

}  // namespace
}  // namespace assay::cuda
