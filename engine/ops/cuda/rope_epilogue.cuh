// Epilogue of the packed projection: QK-norm + RoPE (engine/ops/rope.h) on a tile's accumulators, in place of a pass
// over q and k in memory. A tile is two heads wide, and q and k have an even number of heads together: it is theirs or
// v's. In a row of a head, a thread holds columns 8j + 2q + {0, 1} for j < 16, q = lane % 4 (wgmma.cuh): with column c
// also c + 64, which it rotates with, and four neighbouring lanes hold all of the sum of squares.
#pragma once

#include "engine/ops/cuda/grouped_epilogue.cuh"
#include "engine/ops/norm.h"

namespace assay::cuda {

constexpr int rope_head = 128;

// Of one row, for a thread's columns below 64.
struct Angles {
  float2 cos[8], sin[8];
};

__device__ __forceinline__ bool rotates(const RopeParams& p, int column) {
  return column < p.heads * rope_head;
}

// The first row of a thread's two among the 64 from `row` on; the other is eight further.
__device__ __forceinline__ int thread_row(int row) {
  const int thread = threadIdx.x & 127;
  return row + 16 * (thread / 32) + (thread & 31) / 4;
}

__device__ __forceinline__ void load_angles(Angles& a, const RopeParams& p, int row) {
  const uint32_t at = static_cast<uint32_t>(row) % static_cast<uint32_t>(p.T) * (rope_head / 2) + 2 * (threadIdx.x & 3);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    a.cos[j] = __ldg(reinterpret_cast<const float2*>(p.cos + at + 8 * j));
    a.sin[j] = __ldg(reinterpret_cast<const float2*>(p.sin + at + 8 * j));
  }
}

__device__ __forceinline__ float2 rounded_to_bf16(float x, float y) {
  const uint32_t pair = pack_bf16(x, y);
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)};
}

// Rounds the columns of head h in the thread's row i and rotates them. Returns the sum of their squares.
template <int size>
__device__ __forceinline__ float rotate(float (&d)[size], int h, int i, const Angles& a, float scale) {
  float sum[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float* const first = d + h * (rope_head / 2) + 4 * j + 2 * i;
    float* const second = first + rope_head / 4;
    const float2 x1 = rounded_to_bf16(first[0] * scale, first[1] * scale);
    const float2 x2 = rounded_to_bf16(second[0] * scale, second[1] * scale);
    first[0] = x1.x * a.cos[j].x + x2.x * a.sin[j].x;
    first[1] = x1.y * a.cos[j].y + x2.y * a.sin[j].y;
    second[0] = x2.x * a.cos[j].x - x1.x * a.sin[j].x;
    second[1] = x2.y * a.cos[j].y - x1.y * a.sin[j].y;
    sum[0] = fmaf(second[0], second[0], fmaf(first[0], first[0], sum[0]));
    sum[1] = fmaf(second[1], second[1], fmaf(first[1], first[1], sum[1]));
  }
  return sum[0] + sum[1];
}

// Of a whole head from each lane's part of the sum, within 2 ulp: the exact root and quotient have slow paths.
__device__ __forceinline__ float head_rstd(float sum) {
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  float r;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(sum / rope_head + static_cast<float>(rms_eps)));
  return r;
}

template <int size>
__device__ __forceinline__ void normalize(float (&d)[size], int h, int i, float rstd) {
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    float* const x = d + h * (rope_head / 2) + 4 * j + 2 * i;
    x[0] *= rstd;
    x[1] *= rstd;
  }
}

// Accumulators -> values to store. angles: of thread_row(row), if the tile's heads rotate.
template <int size>
__device__ __forceinline__ void rotate_heads(float (&d)[size], Angles& angles, const GroupedParams& p, float scale,
                                             int column, int row) {
  if (!rotates(p.rope, column)) {
#pragma unroll
    for (int i = 0; i < size; ++i) d[i] *= scale;
    return;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = thread_row(row) + 8 * i;
    const float sums[2] = {rotate(d, 0, i, angles, scale), rotate(d, 1, i, angles, scale)};
    if (i == 0) load_angles(angles, p.rope, at + 8);  // on their way beside the norms
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float rstd = head_rstd(sums[h]);
      normalize(d, h, i, rstd);
      if ((threadIdx.x & 3) == 0 && at < p.a_rows)
        p.rope.rstd[static_cast<size_t>(at) * p.rope.heads + column / rope_head + h] = rstd;
    }
  }
}

}  // namespace assay::cuda
