// Host side of the weight gradients: which kernel sums them, and in how many shares.
#pragma once

#include "engine/ops/cuda/grouped_launch.cuh"
#include "engine/ops/cuda/wgrad_balanced.cuh"

namespace assay::cuda {

template <class C>
int64_t wgrad_tiles(const WeightGradient& x, int groups) {
  return groups * ((x.m + tile_m - 1) / tile_m) * ((x.n + C::bn - 1) / C::bn);
}

// Splits such that the last wave is full: the least waste over the splits whose chunks stay at least 16 stages long.
template <class C>
int wgrad_splits(const WeightGradient& x, int groups) {
  const int64_t tiles = wgrad_tiles<C>(x, groups);
  const int64_t sms = multiprocessors(), steps = (x.group_rows + C::k_per_stage - 1) / C::k_per_stage;
  int best = 1;
  double best_cost = 1e30;
  for (int s = 1; s <= 16 && (s == 1 || steps / s >= 16); ++s) {
    const int64_t waves = (tiles * s + sms - 1) / sms;
    // In units of one tile's full sum; an extra chunk adds a tile to memory, worth about 3 stages.
    const double cost = static_cast<double>(waves) * (static_cast<double>(steps) / s + 3.0);
    if (cost < best_cost) best_cost = cost, best = s;
  }
  return best;
}

// One group of all rows is shared out evenly where that can gain (plan_wgrad); groups, whose rows only the device
// knows, take turns at their tiles.
template <class C>
static void launch_wgrad(cudaStream_t stream, const WeightGradient& x, WgradParams p, Workspace workspace) {
  p.m = static_cast<int>(x.m);
  p.n = static_cast<int>(x.n);
  const int64_t tiles = wgrad_tiles<C>(x, p.groups);
  p.turnstile = workspace.take<int32_t>(x.op, 2 * tiles);
  ASSAY_CUDA_CHECK(x.op, cudaMemsetAsync(p.turnstile, 0, 2 * tiles * sizeof(int32_t), stream));
  const CUtensorMap a =
      C::fp8 ? matrix_map(x.op, x.a, 1, x.m, x.rows, tile_m) : matrix_map(x.op, x.a, 2, x.rows, x.m, 64);
  const CUtensorMap b =
      C::fp8 ? matrix_map(x.op, x.b, 1, x.n, x.rows, C::bn) : matrix_map(x.op, x.b, 2, x.rows, x.n, 64);
  static const bool configured = [] {
    ASSAY_CUDA_CHECK("wgrad",
                     cudaFuncSetAttribute(wgrad_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
    ASSAY_CUDA_CHECK(
        "wgrad", cudaFuncSetAttribute(wgrad_balanced_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
    return true;
  }();
  static_cast<void>(configured);
  WgradPlan plan{};
  if (p.groups == 1 && p.start == nullptr)
    plan = plan_wgrad(tiles, (x.rows + C::k_per_stage - 1) / C::k_per_stage, multiprocessors());
  if (plan.chunks > 0) {
    // At most two chunks and a tail for each of half as many tiles as there are multiprocessors: 33 MiB.
    const WgradSums sums{workspace.take<float>(x.op, tiles * plan.slots() * tile_m * C::bn), p.turnstile};
    wgrad_balanced_kernel<C><<<plan.blocks(), 384, C::smem, stream>>>(a, b, p, plan, sums);
  } else {
    p.splits = wgrad_splits<C>(x, p.groups);
    wgrad_kernel<C><<<multiprocessors(), 384, C::smem, stream>>>(a, b, p);
  }
  ASSAY_CUDA_LAUNCHED(x.op, describe(x.rows, x.m, x.n));
}

}  // namespace assay::cuda
