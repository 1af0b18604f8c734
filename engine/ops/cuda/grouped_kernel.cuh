// Grouped GEMM for Hopper, both operands K-major ("TN"): for every group g and its rows r,
//   out[r, N] = epilogue(sum_k a[r, k] * b[g, n, k]).
// Serves fprop and dgrad (which reads a transposed copy of the weights), BF16 and FP8.
//
// Groups start at multiples of 128 rows and the rows between a group's end and the next start are padding, so a tile
// never crosses groups and stores need no mask. Offsets are read on the device: one launch, no host involved.
//
// One persistent block per SM: a producer warp fills a ring of shared-memory stages by TMA; two consumer warpgroups run
// wgmma on 64 x BN each and store through shared memory by TMA. The warpgroups drift apart by up to the ring's depth,
// so one's epilogue hides behind the other's products. Clusters of two blocks that share B by multicast were measured
// and are 20-30 % slower here: they take that freedom away (docs/benchmarks.md).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "engine/ops/cuda/sm90.cuh"
#include "engine/ops/cuda/wgmma.cuh"

namespace assay::cuda {

enum class GemmType { bf16, e4m3_e4m3, e5m2_e4m3 };
enum class OutType { bf16, e4m3, e5m2 };
enum class Epilogue { none, relu2 };

constexpr int tile_m = 128;           // rows per block: 64 per consumer warpgroup
constexpr int stage_row_bytes = 128;  // one swizzle row of K per stage
constexpr int max_groups = 128;       // bounds the offsets kept in shared memory

struct GroupedParams {
  const int32_t* start;  // [groups], multiples of tile_m
  const int32_t* rows;   // [groups]
  int groups;
  int n;                   // columns of out
  int k_steps;             // K bytes / stage_row_bytes
  const float* a_scale;    // FP8: dequantisation scale [1] of a
  const float* b_scale;    // FP8: [groups]
  const float* out_scale;  // FP8 out: scale [1] of out (value = code * scale)
  float* out_amax;         // FP8 out: raised to max |out|
};

template <GemmType type_, OutType out_, Epilogue epilogue_, int bn_, int stages_>
struct GroupedConfig {
  static constexpr GemmType type = type_;
  static constexpr OutType out = out_;
  static constexpr Epilogue epilogue = epilogue_;
  static constexpr int bn = bn_, stages = stages_;
  static constexpr int a_bytes = tile_m * stage_row_bytes;
  static constexpr int b_bytes = bn * stage_row_bytes;
  static constexpr int out_size = out == OutType::bf16 ? 2 : 1;
  static constexpr int box_columns = stage_row_bytes / out_size;  // one store box: 64 rows x 128 B
  static constexpr int boxes = bn / box_columns;
  static constexpr int box_bytes = 64 * stage_row_bytes;
  static constexpr int staging = 2 * 2 * box_bytes;  // two boxes in flight for each warpgroup
  static constexpr int smem = stages * (a_bytes + b_bytes) + staging + 1024 + 64;
  static_assert(bn % box_columns == 0);
};

// Tile t of the launch -> group, row and column. Rows of one group and column tiles vary fastest over columns.
struct TileWalk {
  int prefix[max_groups + 1];
  int start[max_groups];
};

template <class C>
__device__ __forceinline__ void multiply_stage(float (&d)[C::bn / 2], const uint8_t* a, const uint8_t* b, bool first) {
  const uint64_t da = sm90::matrix_descriptor(a, 16, 1024);
  const uint64_t db = sm90::matrix_descriptor(b, 16, 1024);
#pragma unroll
  for (int k = 0; k < stage_row_bytes / 32; ++k) {
    const bool accumulate = !(first && k == 0);
    if constexpr (C::type == GemmType::bf16) sm90::wgmma_bf16<false, false>(d, da + 2 * k, db + 2 * k, accumulate);
    if constexpr (C::type == GemmType::e4m3_e4m3) sm90::wgmma_e4m3_e4m3(d, da + 2 * k, db + 2 * k, accumulate);
    if constexpr (C::type == GemmType::e5m2_e4m3) sm90::wgmma_e5m2_e4m3(d, da + 2 * k, db + 2 * k, accumulate);
  }
}

__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r0), "r"(r1),
               "r"(r2), "r"(r3)
               : "memory");
}

__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
template <OutType out>
__device__ __forceinline__ uint32_t pack_fp8(float lo, float hi) {
  uint16_t r;
  if constexpr (out == OutType::e4m3)
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
  else
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
  return r;
}

// Four lanes hold columns (2q, 2q+1) and (8+2q, 9+2q) of 16; give lane q columns 4q..4q+3, which is what stmatrix
// wants.
__device__ __forceinline__ uint32_t gather_columns(uint32_t pairs, int lane) {
  const int q = lane & 3, base = lane & ~3;
  const uint32_t first = __shfl_sync(~0u, pairs, base + ((2 * q) & 3));
  const uint32_t second = __shfl_sync(~0u, pairs, base + ((2 * q + 1) & 3));
  return __byte_perm(first, second, q < 2 ? 0x5410 : 0x7632);
}

// 64 rows x bn of one warpgroup: box by box through two staging buffers.
template <class C>
__device__ __forceinline__ void store_tile(float (&d)[C::bn / 2], uint8_t* staging, const CUtensorMap* map, int column,
                                           int row, float scale, float inverse_out_scale, float& amax, int consumer) {
  const int thread = threadIdx.x & 127, warp = thread / 32, lane = thread & 31;
  const int local_row = 16 * warp + (lane / 8 & 1) * 8 + (lane & 7);
#pragma unroll
  for (int i = 0; i < C::bn / 2; ++i) {
    float v = d[i] * scale;
    if constexpr (C::epilogue == Epilogue::relu2) v = v > 0 ? v * v : 0.0f;
    if constexpr (C::out != OutType::bf16) {
      amax = fmaxf(amax, fabsf(v));
      v *= inverse_out_scale;
    }
    d[i] = v;
  }
#pragma unroll
  for (int box = 0; box < C::boxes; ++box) {
    uint8_t* buffer = staging + (box & 1) * C::box_bytes;
    if (thread == 0) sm90::tma_store_wait_read<1>();
    sm90::named_barrier(1 + consumer, 128);
    const uint32_t row_address = sm90::smem_address(buffer) + local_row * stage_row_bytes;
    if constexpr (C::out == OutType::bf16) {
#pragma unroll
      for (int j = 0; j < 8; j += 2) {  // two 8-column blocks = two 16-byte chunks
        const float* v = d + 4 * (8 * box + j);
        const int chunk = j + lane / 16;
        store_matrices(row_address + ((chunk ^ (local_row & 7)) << 4), pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                       pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
      }
    } else {
#pragma unroll
      for (int c = 0; c < 8; c += 2) {  // two 16-column chunks
        const float* v = d + 4 * (16 * box + 2 * c);
        uint32_t r[4];
#pragma unroll
        for (int m = 0; m < 4; ++m) {  // m&1: rows +8; m>>1: next chunk
          const float* e = v + 8 * (m >> 1) + 2 * (m & 1);
          r[m] = gather_columns(pack_fp8<C::out>(e[0], e[1]) | pack_fp8<C::out>(e[4], e[5]) << 16, lane);
        }
        const int chunk = c + lane / 16;
        store_matrices(row_address + ((chunk ^ (local_row & 7)) << 4), r[0], r[1], r[2], r[3]);
      }
    }
    sm90::fence_async_shared();
    sm90::named_barrier(1 + consumer, 128);
    if (thread == 0) {
      sm90::tma_store(map, buffer, column + box * C::box_columns, row);
      sm90::tma_store_commit();
    }
  }
}

template <class C>
__global__ __launch_bounds__(384, 1) void grouped_kernel(const __grid_constant__ CUtensorMap map_a,
                                                         const __grid_constant__ CUtensorMap map_b,
                                                         const __grid_constant__ CUtensorMap map_out, GroupedParams p) {
  extern __shared__ uint8_t raw[];
  uint8_t* smem = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  uint8_t* stage_a = smem;
  uint8_t* stage_b = smem + C::stages * C::a_bytes;
  uint8_t* staging = stage_b + C::stages * C::b_bytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(staging + C::staging);
  uint64_t* empty = full + C::stages;
  __shared__ TileWalk walk;

  const int warpgroup = threadIdx.x / 128;
  const int columns = p.n / C::bn;

  if (threadIdx.x == 0) {
    for (int s = 0; s < C::stages; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], 2);
    }
    sm90::fence_barrier_init();
    int total = 0;
    for (int g = 0; g < p.groups; ++g) {
      walk.prefix[g] = total;
      walk.start[g] = p.start[g];
      total += (p.rows[g] + tile_m - 1) / tile_m * columns;
    }
    walk.prefix[p.groups] = total;
  }
  __syncthreads();

  const int tiles = walk.prefix[p.groups];

  if (warpgroup == 0) {
    sm90::registers_give<40>();
    if (threadIdx.x == 0) {
      int stage = 0;
      uint32_t phase = 0;
      int g = 0;
      for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        while (t >= walk.prefix[g + 1]) ++g;
        const int local = t - walk.prefix[g];
        const int row = walk.start[g] + local / columns * tile_m;
        const int b_row = g * p.n + local % columns * C::bn;
        for (int k = 0; k < p.k_steps; ++k) {
          sm90::barrier_wait(&empty[stage], phase ^ 1);
          sm90::barrier_expect(&full[stage], C::a_bytes + C::b_bytes);
          const int x = k * (C::type == GemmType::bf16 ? 64 : 128);
          sm90::tma_load(stage_a + stage * C::a_bytes, &map_a, x, row, &full[stage]);
          sm90::tma_load(stage_b + stage * C::b_bytes, &map_b, x, b_row, &full[stage]);
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
      }
    }
  } else {
    sm90::registers_take<232>();
    const int consumer = warpgroup - 1;
    const bool elected = (threadIdx.x & 127) == 0;
    uint8_t* my_staging = staging + consumer * 2 * C::box_bytes;
    int stage = 0;
    uint32_t phase = 0;
    int g = 0;
    float amax = 0;
    float inverse_out_scale = 1;
    if constexpr (C::out != OutType::bf16) inverse_out_scale = 1.0f / *p.out_scale;
    auto release = [&](int s) {
      if (elected) sm90::barrier_arrive(&empty[s]);
    };
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      while (t >= walk.prefix[g + 1]) ++g;
      const int local = t - walk.prefix[g];
      const int tile_row = local / columns * tile_m;
      float d[C::bn / 2];
      int previous = -1;
      for (int k = 0; k < p.k_steps; ++k) {
        sm90::barrier_wait(&full[stage], phase);
        sm90::wgmma_fence();
        multiply_stage<C>(d, stage_a + stage * C::a_bytes + consumer * 64 * stage_row_bytes,
                          stage_b + stage * C::b_bytes, k == 0);
        sm90::wgmma_commit();
        if (previous >= 0) {
          sm90::wgmma_wait<1>();
          release(previous);
        }
        previous = stage;
        if (++stage == C::stages) stage = 0, phase ^= 1;
      }
      sm90::wgmma_wait<0>();
      release(previous);
      float scale = 1;
      if constexpr (C::type != GemmType::bf16) scale = *p.a_scale * p.b_scale[g];
      store_tile<C>(d, my_staging, &map_out, local % columns * C::bn, walk.start[g] + tile_row + consumer * 64, scale,
                    inverse_out_scale, amax, consumer);
    }
    if constexpr (C::out != OutType::bf16) {
      amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 16));
      amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 8));
      amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 4));
      amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 2));
      amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 1));
      // Non-negative floats order like their bits.
      if ((threadIdx.x & 31) == 0) atomicMax(reinterpret_cast<int*>(p.out_amax), __float_as_int(amax));
    }
    if (elected) sm90::tma_store_wait_read<0>();
  }
}

}  // namespace assay::cuda
