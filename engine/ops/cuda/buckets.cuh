// Stable distribution of items into at most 256 buckets: blocks of 1,024 consecutive items are counted, the counts
// become positions by a scan, and the items move. Integers only, so the result never depends on scheduling.
#pragma once

#include "engine/ops/cuda/element.cuh"

namespace assay::cuda {

constexpr int bucket_block = 1024;
constexpr int max_buckets = 256;

// Counts [gridDim.x, buckets] of the block's items; bucket(i) gives the bucket of item i.
template <class Bucket>
__device__ __forceinline__ void count_block(int32_t* counts, int64_t items, int buckets, Bucket&& bucket) {
  __shared__ int32_t local[max_buckets];
  for (int b = threadIdx.x; b < buckets; b += bucket_block) local[b] = 0;
  __syncthreads();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * bucket_block + threadIdx.x;
  if (i < items) atomicAdd(&local[bucket(i)], 1);
  __syncthreads();
  for (int b = threadIdx.x; b < buckets; b += bucket_block)
    counts[static_cast<int64_t>(blockIdx.x) * buckets + b] = local[b];
}

// One warp: turns column b of counts [blocks, buckets] into its exclusive prefix sums; returns the sum to every lane.
__device__ __forceinline__ int32_t scan_column(int32_t* counts, int blocks, int buckets, int b) {
  const int lane = threadIdx.x % 32;
  int32_t carry = 0;
  for (int first = 0; first < blocks; first += 32) {
    const bool valid = first + lane < blocks;
    int32_t* at = counts + static_cast<int64_t>(first + lane) * buckets + b;
    const int32_t count = valid ? *at : 0;
    int32_t inclusive = count;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t below = __shfl_up_sync(0xFFFFFFFFu, inclusive, offset);
      if (lane >= offset) inclusive += below;
    }
    if (valid) *at = carry + inclusive - count;
    carry += __shfl_sync(0xFFFFFFFFu, inclusive, 31);
  }
  return carry;
}

// The number of earlier items of this block in the same bucket. b < 0: no item. All 1,024 threads must call it.
__device__ __forceinline__ int32_t rank_in_block(int b, int buckets) {
  constexpr int warps = bucket_block / 32;
  __shared__ int16_t warp_counts[warps][max_buckets];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int i = lane; i < buckets; i += 32) warp_counts[warp][i] = 0;
  __syncwarp();
  const uint32_t same = __match_any_sync(0xFFFFFFFFu, b);
  const int32_t rank = __popc(same & ((1u << lane) - 1));
  if (b >= 0 && rank == 0) warp_counts[warp][b] = static_cast<int16_t>(__popc(same));
  __syncthreads();
  for (int i = threadIdx.x; i < buckets; i += bucket_block) {
    int16_t before = 0;
    for (int w = 0; w < warps; ++w) {
      const int16_t count = warp_counts[w][i];
      warp_counts[w][i] = before;
      before = static_cast<int16_t>(before + count);
    }
  }
  __syncthreads();
  return b < 0 ? 0 : rank + warp_counts[warp][b];
}

}  // namespace assay::cuda
