// Weight gradients of one group with few tiles: dw[M, N] (+)= sum over the rows r of a[r, m] * b[r, n], operands as in
// wgrad_kernel.cuh, where a turnstile adds the chunks of a tile one after the other. With 24 tiles on 132
// multiprocessors five chunks of a tile end at once and would queue there for a third of the product's time.
//
// Here every block works equally long, writes its sums to memory (they stay in L2) and, when all that belong to a tile
// are there, adds a share of its elements in the order of the chunks: no queue, and the same bits every time. As many
// chunks of the reduction as fit are spread over all tiles, so that the blocks of a chunk read the same rows at the
// same time; the blocks left over share the tail of the reduction, several tiles each.
//
// All blocks are resident (at most one per multiprocessor), and none waits before all its sums are written.
#pragma once

#include "engine/ops/cuda/wgrad_kernel.cuh"
#include "engine/ops/cuda/wgrad_plan.h"

namespace assay::cuda {

struct WgradSums {
  float* partial;    // [tiles, slots, 2 warpgroups, bn / 8, 128 threads] of float4: accumulators as they lie
  int32_t* arrived;  // [tiles, 2], zero
};

// This block's share of a tile's sums: the column blocks slot, slot + n, ... of n contributors, by one warpgroup.
template <class C>
__device__ __forceinline__ void add_partials(const WgradPlan& plan, const WgradSums& sums, const WgradPiece& piece,
                                             const WgradParams& p, int consumer, float scale) {
  constexpr int column_blocks = C::bn / 8, at_once = 3, ahead = 8;  // loads in flight: at_once * ahead
  const int thread = threadIdx.x & 127, lane = thread & 31, n = plan.contributors(piece.tile);
  const int columns = (p.n + C::bn - 1) / C::bn;
  const int row = piece.tile / columns * tile_m + consumer * 64 + thread / 32 * 16 + lane / 4;
  const int column = piece.tile % columns * C::bn + 2 * (lane & 3);
  const float4* from = reinterpret_cast<const float4*>(sums.partial) +
                       (static_cast<size_t>(piece.tile) * plan.slots() * 2 + consumer) * column_blocks * 128 + thread;
  for (int first = piece.slot; first < column_blocks; first += at_once * n) {
    float4 sum[at_once];
#pragma unroll
    for (int b = 0; b < at_once; ++b) sum[b] = make_float4(0, 0, 0, 0);
    for (int k = 0; k < n; k += ahead) {
      float4 v[at_once][ahead];
#pragma unroll
      for (int b = 0; b < at_once; ++b) {
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
          const int j = first + b * n;
          v[b][i] = make_float4(0, 0, 0, 0);
          if (j < column_blocks && k + i < n) v[b][i] = __ldcg(from + ((k + i) * 2 * column_blocks + j) * 128);
        }
      }
#pragma unroll
      for (int b = 0; b < at_once; ++b) {
#pragma unroll
        for (int i = 0; i < ahead; ++i)
          sum[b].x += v[b][i].x, sum[b].y += v[b][i].y, sum[b].z += v[b][i].z, sum[b].w += v[b][i].w;
      }
    }
#pragma unroll
    for (int b = 0; b < at_once; ++b) {
      const int j = first + b * n;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (j >= column_blocks || row + 8 * i >= p.m || column + 8 * j >= p.n) continue;  // edge tiles; n is even
        float2* to = reinterpret_cast<float2*>(p.dw + static_cast<size_t>(row + 8 * i) * p.n + column + 8 * j);
        const float2 before = p.accumulate ? *to : make_float2(0, 0);
        *to = make_float2(before.x + (i == 0 ? sum[b].x : sum[b].z) * scale,
                          before.y + (i == 0 ? sum[b].y : sum[b].w) * scale);
      }
    }
  }
}

template <class C>
__global__ __launch_bounds__(384, 1) void wgrad_balanced_kernel(const __grid_constant__ CUtensorMap map_a,
                                                                const __grid_constant__ CUtensorMap map_b,
                                                                WgradParams p, WgradPlan plan, WgradSums sums) {
  extern __shared__ uint8_t raw[];
  const Ring ring = begin_ring<C>(raw, 0, 0, [] {});
  uint8_t *const stage_a = ring.a, *const stage_b = ring.b;
  uint64_t *const full = ring.full, *const empty = ring.empty;
  const int columns = (p.n + C::bn - 1) / C::bn, warpgroup = threadIdx.x / 128;
  int stage = 0;
  uint32_t phase = 0;
  WgradPiece piece;

  if (warpgroup == 0) {
    sm90::registers_give<40>();
    if (threadIdx.x == 0) {
      for (WgradPieces pieces(plan, blockIdx.x); pieces.next(&piece);) {
        const int m = piece.tile / columns * tile_m, n = piece.tile % columns * C::bn;
        for (int k = piece.first; k < piece.first + piece.steps; ++k) {
          sm90::barrier_wait(&empty[stage], phase ^ 1);
          load_rows<C>(stage_a + stage * C::a_bytes, stage_b + stage * C::b_bytes, &map_a, &map_b, k * C::k_per_stage,
                       m, n, &full[stage]);
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
      }
    }
  } else {
    sm90::registers_take<232>();
    const int consumer = warpgroup - 1;
    const bool elected = (threadIdx.x & 127) == 0;
    for (WgradPieces pieces(plan, blockIdx.x); pieces.next(&piece);) {
      float d[C::bn / 2];
      sum_rows<C>(d, piece.steps, stage_a, stage_b, full, empty, stage, phase, consumer);
      float4* to = reinterpret_cast<float4*>(sums.partial) +
                   ((static_cast<size_t>(piece.tile) * plan.slots() + piece.slot) * 2 + consumer) * (C::bn / 8) * 128 +
                   (threadIdx.x & 127);
#pragma unroll
      for (int j = 0; j < C::bn / 8; ++j) to[j * 128] = make_float4(d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3]);
      __threadfence();
      sm90::named_barrier(1 + consumer, 128);
      if (elected)
        asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(sums.arrived + 2 * piece.tile + consumer)
                     : "memory");
    }
    const float scale = C::fp8 ? *p.a_scale * *p.b_scale : 1.0f;
    for (WgradPieces pieces(plan, blockIdx.x); pieces.next(&piece);) {
      if (elected) {
        const int all = plan.contributors(piece.tile);
        int seen;
        do
          asm volatile("ld.acquire.gpu.s32 %0, [%1];"
                       : "=r"(seen)
                       : "l"(sums.arrived + 2 * piece.tile + consumer)
                       : "memory");
        while (seen != all);
      }
      sm90::named_barrier(1 + consumer, 128);
      add_partials<C>(plan, sums, piece, p, consumer, scale);
    }
  }
}

}  // namespace assay::cuda
