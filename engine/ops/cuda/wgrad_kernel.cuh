// Weight gradients of the experts for Hopper: for every group g, dw[g][M, N] (+)= sum over its rows r of a[r, m] * b[r,
// n].
//
// BF16: a [R, M] and b [R, N] are read as they lie; wgmma takes them MN-major. FP8 wants both operands K-major, so a
// and b are the transposed copies [M, R] and [N, R] that the producers wrote beside the row-major ones.
//
// A tile's sum over 16,384 rows is cut into `splits` chunks so that the tiles of all experts fill the machine evenly.
// Units are numbered chunk by chunk; the chunks of one tile are added in order by a turnstile (one counter a half
// tile), which keeps the result independent of timing. Blocks take units in rising order and are all resident, so the
// wait cannot deadlock, and it is almost never one: the earlier chunk started a whole wave before.
#pragma once

#include "engine/ops/cuda/product.cuh"

namespace assay::cuda {

struct WgradParams {
  const int32_t* start;  // [groups], multiples of 128; null: one group of all rows (group_rows)
  const int32_t* rows;   // [groups]; rows up to the next multiple of 128 hold zeros
  int groups, group_rows, m, n, splits;
  bool accumulate;       // add to dw instead of replacing it
  float* dw;             // [groups, m, n]
  int32_t* turnstile;    // [tiles, 2 warpgroups], zero before and after
  const float* a_scale;  // FP8: tensorwise dequantisation scales [1]
  const float* b_scale;
};

// promoted_: the sum moves from the tensor cores' accumulators to other registers every promotion_stages.
template <GemmType type_, int bn_, int stages_, bool promoted_ = false>
struct WgradConfig {
  static constexpr GemmType type = type_;
  static constexpr bool promoted = promoted_;
  static constexpr int bn = bn_, stages = stages_;
  static constexpr bool fp8 = type != GemmType::bf16;
  static constexpr int k_per_stage = fp8 ? 128 : 64;  // rows of the reduction
  static constexpr int a_bytes = tile_m * 128, b_bytes = bn * 128;
  static constexpr int smem = stages * (a_bytes + b_bytes) + 1024 + 128;
};

struct WgradUnit {
  int group, m, n, first_row, steps, chunk, tile;
};

template <class C>
__device__ __forceinline__ WgradUnit wgrad_unit(int u, int tiles, const WgradParams& p) {
  WgradUnit w;
  const int columns = (p.n + C::bn - 1) / C::bn, per_group = columns * ((p.m + tile_m - 1) / tile_m);
  w.chunk = u / tiles;
  w.tile = u % tiles;
  w.group = w.tile / per_group;
  w.m = w.tile % per_group / columns * tile_m;
  w.n = w.tile % columns * C::bn;
  const int rows = p.start == nullptr ? p.group_rows : p.rows[w.group];
  const int steps = (rows + C::k_per_stage - 1) / C::k_per_stage;
  const int first = steps * w.chunk / p.splits;
  w.steps = steps * (w.chunk + 1) / p.splits - first;
  w.first_row = (p.start == nullptr ? 0 : p.start[w.group]) + first * C::k_per_stage;
  return w;
}

template <class C>
__device__ __forceinline__ void wgrad_multiply(float (&d)[C::bn / 2], const uint8_t* a, const uint8_t* b, int consumer,
                                               bool first) {
  if constexpr (C::fp8) {
    const uint64_t da = sm90::matrix_descriptor(a + consumer * 64 * 128, 16, 1024);
    const uint64_t db = sm90::matrix_descriptor(b, 16, 1024);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (C::type == GemmType::e5m2_e4m3)
        sm90::wgmma_e5m2_e4m3(d, da + 2 * k, db + 2 * k, !(first && k == 0));
      else
        sm90::wgmma_e4m3_e4m3(d, da + 2 * k, db + 2 * k, !(first && k == 0));
    }
  } else {
    // Boxes of 64 columns x 64 rows: 8 rows are one 1024-byte atom along K, boxes follow each other along MN.
    constexpr int box = 64 * 128;
    const uint64_t da = sm90::matrix_descriptor(a + consumer * box, box, 1024);
    const uint64_t db = sm90::matrix_descriptor(b, box, 1024);
#pragma unroll
    for (int k = 0; k < 4; ++k)  // 16 rows = 2048 bytes
      sm90::wgmma_bf16<true, true>(d, da + 128 * k, db + 128 * k, !(first && k == 0));
  }
}

// Producer: a stage of the rows from `row` on, of columns m.. of a and n.. of b.
template <class C>
__device__ __forceinline__ void load_rows(uint8_t* a, uint8_t* b, const CUtensorMap* map_a, const CUtensorMap* map_b,
                                          int row, int m, int n, uint64_t* full) {
  sm90::barrier_expect(full, C::a_bytes + C::b_bytes);
  if constexpr (C::fp8) {
    sm90::tma_load(a, map_a, row, m, full);
    sm90::tma_load(b, map_b, row, n, full);
  } else {
    for (int i = 0; i < tile_m / 64; ++i) sm90::tma_load(a + i * 8192, map_a, m + 64 * i, row, full);
    for (int i = 0; i < C::bn / 64; ++i) sm90::tma_load(b + i * 8192, map_b, n + 64 * i, row, full);
  }
}

// Consumer: d = the sum over `steps` stages.
template <class C>
__device__ __forceinline__ void sum_rows(float (&d)[C::bn / 2], int steps, const uint8_t* stage_a,
                                         const uint8_t* stage_b, uint64_t* full, uint64_t* empty, int& stage,
                                         uint32_t& phase, int consumer) {
  const bool elected = (threadIdx.x & 127) == 0;
  if (steps == 0) {
#pragma unroll
    for (int i = 0; i < C::bn / 2; ++i) d[i] = 0;
  }
  int previous = -1;
  [[maybe_unused]] float promoted[C::bn / 2] = {};
  for (int k = 0; k < steps; ++k) {
    bool anew = k == 0;
    if constexpr (C::promoted) anew = begins_anew(k, promoted, d, previous, empty, elected);
    sm90::barrier_wait(&full[stage], phase);
    sm90::wgmma_fence();
    wgrad_multiply<C>(d, stage_a + stage * C::a_bytes, stage_b + stage * C::b_bytes, consumer, anew);
    sm90::wgmma_commit();
    if (previous >= 0) {
      sm90::wgmma_wait<1>();
      if (elected) sm90::barrier_arrive(&empty[previous]);
    }
    previous = stage;
    if (++stage == C::stages) stage = 0, phase ^= 1;
  }
  sm90::wgmma_wait<0>();
  if (elected && previous >= 0) sm90::barrier_arrive(&empty[previous]);
  if constexpr (C::promoted) promote(d, promoted);
}

template <class C>
__device__ __forceinline__ void wgrad_store(const float (&d)[C::bn / 2], const WgradUnit& w, const WgradParams& p,
                                            int consumer, float scale) {
  const int thread = threadIdx.x & 127, lane = thread & 31;
  const int row = w.m + consumer * 64 + thread / 32 * 16 + lane / 4;
  float* out = p.dw + (static_cast<size_t>(w.group) * p.m + row) * p.n + w.n + 2 * (lane & 3);
  const bool add = w.chunk > 0 || p.accumulate;
#pragma unroll
  for (int j = 0; j < C::bn / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (row + 8 * i >= p.m || w.n + 2 * (lane & 3) + 8 * j >= p.n) continue;  // edge tiles; n is even
      float* at = out + static_cast<size_t>(8 * i) * p.n + 8 * j;
      const float x = d[4 * j + 2 * i] * scale, y = d[4 * j + 2 * i + 1] * scale;
      if (add)
        asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(at), "f"(x), "f"(y) : "memory");
      else
        *reinterpret_cast<float2*>(at) = make_float2(x, y);
    }
  }
}

template <class C>
__global__ __launch_bounds__(384, 1) void wgrad_kernel(const __grid_constant__ CUtensorMap map_a,
                                                       const __grid_constant__ CUtensorMap map_b, WgradParams p) {
  extern __shared__ uint8_t raw[];
  const Ring ring = begin_ring<C>(raw, 0, 0, [] {});
  uint8_t *const stage_a = ring.a, *const stage_b = ring.b;
  uint64_t *const full = ring.full, *const empty = ring.empty;
  const int tiles = p.groups * ((p.m + tile_m - 1) / tile_m) * ((p.n + C::bn - 1) / C::bn), units = tiles * p.splits;
  const int warpgroup = threadIdx.x / 128;
  int stage = 0;
  uint32_t phase = 0;

  if (warpgroup == 0) {
    sm90::registers_give<40>();
    if (threadIdx.x == 0) {
      for (int u = blockIdx.x; u < units; u += gridDim.x) {
        const WgradUnit w = wgrad_unit<C>(u, tiles, p);
        for (int k = 0; k < w.steps; ++k) {
          sm90::barrier_wait(&empty[stage], phase ^ 1);
          load_rows<C>(stage_a + stage * C::a_bytes, stage_b + stage * C::b_bytes, &map_a, &map_b,
                       w.first_row + k * C::k_per_stage, w.m, w.n, &full[stage]);
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
      }
    }
  } else {
    sm90::registers_take<232>();
    const int consumer = warpgroup - 1;
    const bool elected = (threadIdx.x & 127) == 0;
    const float scale = C::fp8 ? *p.a_scale * *p.b_scale : 1.0f;
    for (int u = blockIdx.x; u < units; u += gridDim.x) {
      const WgradUnit w = wgrad_unit<C>(u, tiles, p);
      float d[C::bn / 2];
      sum_rows<C>(d, w.steps, stage_a, stage_b, full, empty, stage, phase, consumer);

      // One turnstile per tile and warpgroup, which stores its own half of the rows.
      int32_t* turnstile = p.turnstile + w.tile * 2 + consumer;
      if (w.chunk > 0) {
        if (elected) {
          int seen;
          do asm volatile("ld.acquire.gpu.s32 %0, [%1];" : "=r"(seen) : "l"(turnstile) : "memory");
          while (seen != w.chunk);
        }
        sm90::named_barrier(1 + consumer, 128);
      }
      wgrad_store<C>(d, w, p, consumer, scale);
      __threadfence();
      sm90::named_barrier(1 + consumer, 128);
      if (elected) {
        const int next = w.chunk + 1 == p.splits ? 0 : w.chunk + 1;
        asm volatile("st.release.gpu.s32 [%0], %1;" ::"l"(turnstile), "r"(next) : "memory");
      }
    }
  }
}

}  // namespace assay::cuda
