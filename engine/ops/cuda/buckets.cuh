// Stable distribution of items into at most 256 buckets: blocks of 1,024 consecutive items are counted, then each block
// sums the counts of those before it and moves its items. Integers only, so the result never depends on scheduling.
#pragma once

#include "engine/ops/cuda/element.cuh"

namespace assay::cuda {

constexpr int bucket_block = 1024;
constexpr int max_buckets = 256;

// Counts [buckets, gridDim.x] of the block's items; bucket(i) gives the bucket of item i.
template <class Bucket>
__device__ __forceinline__ void count_block(int32_t* counts, int64_t items, int buckets, Bucket&& bucket) {
  __shared__ int32_t local[max_buckets];
  for (int b = threadIdx.x; b < buckets; b += bucket_block) local[b] = 0;
  __syncthreads();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * bucket_block + threadIdx.x;
  if (i < items) atomicAdd(&local[bucket(i)], 1);
  __syncthreads();
  for (int b = threadIdx.x; b < buckets; b += bucket_block)
    counts[static_cast<int64_t>(b) * gridDim.x + blockIdx.x] = local[b];
}

// From the counts, in shared memory: the items of each bucket, those of them in earlier blocks, and where each bucket
// starts when every bucket takes width(items) places. Every block works it out for itself, which is less than a launch.
struct BucketPlaces {
  int32_t total[max_buckets], earlier[max_buckets], start[max_buckets];

  template <class Width>
  __device__ __forceinline__ void locate(const int32_t* counts, int buckets, Width&& width) {
    constexpr int share = bucket_block / max_buckets;  // threads per bucket
    const int b = threadIdx.x / share, blocks = gridDim.x, mine = blockIdx.x;
    int32_t sum = 0, before = 0;
    if (b < buckets)
#pragma unroll 8
      for (int i = threadIdx.x % share; i < blocks; i += share) {
        const int32_t count = counts[static_cast<int64_t>(b) * blocks + i];
        sum += count;
        before += i < mine ? count : 0;
      }
#pragma unroll
    for (int offset = share / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      before += __shfl_xor_sync(0xFFFFFFFFu, before, offset);
    }
    if (threadIdx.x % share == 0) total[b] = sum, earlier[b] = before;
    __syncthreads();
    if (threadIdx.x < 32) scan(buckets, width);
    __syncthreads();
  }

 private:
  template <class Width>
  __device__ __forceinline__ void scan(int buckets, Width&& width) {
    int32_t carry = 0;
    for (int b = threadIdx.x; b < max_buckets; b += 32) {
      const int32_t room = b < buckets ? width(total[b]) : 0;
      int32_t inclusive = room;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const int32_t below = __shfl_up_sync(0xFFFFFFFFu, inclusive, offset);
        if (threadIdx.x >= offset) inclusive += below;
      }
      start[b] = carry + inclusive - room;
      carry += __shfl_sync(0xFFFFFFFFu, inclusive, 31);
    }
  }
};

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
