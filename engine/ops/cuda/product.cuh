// What the products into BF16 (grouped_kernel.cuh) and into FP8 codes (codes_kernel.cuh) share: operands, parameters,
// the walk over the tiles and the products of one stage. A configuration C says type, bn, b_mn_major and symmetric.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "engine/ops/cuda/sm90.cuh"
#include "engine/ops/cuda/wgmma.cuh"
#include "spec/backend_limits.h"

namespace assay::cuda {

enum class GemmType { bf16, e4m3_e4m3, e5m2_e4m3 };
// relu2: out = relu(acc)^2. relu2_grad: acc is dL/dh and `hidden` holds h = relu(z)^2; out = dL/dz = acc * 2*sqrt(h),
// and the row sums of acc * h, from which the router's gradient follows, go to gate_partial.
// residual: out = alpha * acc + beta * hidden.
// qk_rope: QK-norm + RoPE on the heads of q and k, see rope_epilogue.cuh.
enum class Epilogue { none, relu2, relu2_grad, residual, qk_rope };

constexpr int tile_m = cuda_limits.row_alignment;  // rows per block: 64 per consumer warpgroup
static_assert(tile_m == 2 * 64);
constexpr int stage_row_bytes = 128;  // one swizzle row of K per stage
constexpr int max_groups = cuda_limits[RunSize::experts].most;
constexpr int promotion_stages = 8;  // between two promotions of an FP8 sum, see GemmFp8Args::promote: 1,024 terms

// qk_rope: what engine/ops/rope.h says of them. Heads of 128 columns, those of q and k first.
struct RopeParams {
  const float *cos, *sin;  // [T, 64]
  float* rstd;             // [rows of a, heads]
  int T, heads;            // heads: of q and k together
};

struct GroupedParams {
  const int32_t*
      start;            // [groups], multiples of tile_m; null: group g owns rows [g * group_rows, (g + 1) * group_rows)
  const int32_t* rows;  // [groups]
  int groups;
  int group_rows;
  int n;                 // columns of out
  bool rows_first;       // one group without start: the tiles of a column follow each other, see find_tile
  int k_steps;           // stages along K, rounded up
  const float* a_scale;  // FP8: dequantisation scale [1] of a; rowwise [a_rows], blockwise [a_rows, k_steps]
  const float* b_scale;  // FP8: [groups]; rowwise [groups, n], blockwise [groups, ceil(n / 128), k_steps]
  float* gate_partial;  // relu2_grad: [rows up to 128, ceil(n / bn)], the sum over one tile's columns; null: not wanted
  float alpha, beta;    // residual
  int a_rows;           // all rows of a: rowwise and blockwise scales and qk_rope's rstd end there
  RopeParams rope;
  // Into codes:
  const float* out_scale;            // scale [1] of out (value = code * scale); 0 counts as 1
  float* out_amax;                   // raised to max |out|
  const float* hidden_scale;         // relu2_grad: scale [1] of the codes of hidden
  float *used_scale, *used_scale_t;  // receive the scale of out; may be null
};

// Tile t of the launch -> group, row and column; columns run fastest, then the rows of a group, so that a group's
// weights stay in L2. A product with more columns than rows keeps its rows there instead (rows_first): with the 50 MB
// of an output layer as `b`, the other order reads them once per row of tiles.
struct TileWalk {
  int prefix[max_groups + 1];
  int start[max_groups];
};
struct Tile {
  int group, row, column;
};
// Symmetric: the first column tile of row tile i is the one with the diagonal.
template <class C>
__device__ __forceinline__ int first_column_tile(int row_tile) {
  return C::symmetric ? row_tile * tile_m / C::bn : 0;
}
// Tiles of one of the groups of equal size.
template <class C>
__device__ __forceinline__ int tiles_per_group(const GroupedParams& p, int columns) {
  const int row_tiles = (p.group_rows + tile_m - 1) / tile_m;
  if constexpr (!C::symmetric) return row_tiles * columns;
  int tiles = 0;
  for (int i = 0; i < row_tiles; ++i) tiles += columns - first_column_tile<C>(i);
  return tiles;
}

// By one thread, before the others of the block use the walk. columns: of tiles.
__device__ __forceinline__ void begin_walk(TileWalk& walk, const GroupedParams& p, int columns) {
  int total = 0;
  for (int g = 0; p.start != nullptr && g < p.groups; ++g) {
    walk.prefix[g] = total;
    walk.start[g] = p.start[g];
    total += (p.rows[g] + tile_m - 1) / tile_m * columns;
    walk.prefix[g + 1] = total;
  }
}
template <class C>
__device__ __forceinline__ int count_tiles(const TileWalk& walk, const GroupedParams& p, int columns) {
  return p.start != nullptr ? walk.prefix[p.groups] : p.groups * tiles_per_group<C>(p, columns);
}
// group: the caller's, 0 before its first tile; tiles come in rising order.
template <class C>
__device__ __forceinline__ Tile find_tile(const TileWalk& walk, const GroupedParams& p, int columns, int t,
                                          int& group) {
  int local;
  if (p.start == nullptr) {
    const int per_group = tiles_per_group<C>(p, columns);
    group = t / per_group;
    local = t % per_group;
    if constexpr (C::symmetric) {
      int i = 0, first = 0;
      for (; local >= columns - first; first = first_column_tile<C>(++i)) local -= columns - first;
      return {group, group * p.group_rows + i * tile_m, (first + local) * C::bn};
    }
    if (p.rows_first) {
      const int row_tiles = (p.group_rows + tile_m - 1) / tile_m;
      return {0, t % row_tiles * tile_m, t / row_tiles * C::bn};
    }
    return {group, group * p.group_rows + local / columns * tile_m, local % columns * C::bn};
  }
  while (t >= walk.prefix[group + 1]) ++group;
  local = t - walk.prefix[group];
  return {group, walk.start[group] + local / columns * tile_m, local % columns * C::bn};
}

template <class C, int size>
__device__ __forceinline__ void multiply_stage(float (&d)[size], const uint8_t* a, const uint8_t* b, bool first) {
  const uint64_t da = sm90::matrix_descriptor(a, 16, 1024);
  // MN-major: boxes of 64 columns x 64 k, 8 k make a 1024-byte atom, boxes follow each other along n.
  constexpr int box = 64 * 128;
  const uint64_t db = C::b_mn_major ? sm90::matrix_descriptor(b, box, 1024) : sm90::matrix_descriptor(b, 16, 1024);
  constexpr int b_step = C::b_mn_major ? 16 * 128 / 16 : 2;
#pragma unroll
  for (int k = 0; k < stage_row_bytes / 32; ++k) {
    const bool accumulate = !(first && k == 0);
    if constexpr (C::type == GemmType::bf16)
      sm90::wgmma_bf16<false, C::b_mn_major>(d, da + 2 * k, db + b_step * k, accumulate);
    if constexpr (C::type == GemmType::e4m3_e4m3) sm90::wgmma_e4m3_e4m3(d, da + 2 * k, db + 2 * k, accumulate);
    if constexpr (C::type == GemmType::e5m2_e4m3) sm90::wgmma_e5m2_e4m3(d, da + 2 * k, db + 2 * k, accumulate);
  }
}

// A promoted sum takes on what the tensor cores have summed up, once that is waited for.
template <int size>
__device__ __forceinline__ void promote(float (&to)[size], float (&from)[size]) {
#pragma unroll
  for (float& x : from) asm volatile("" : "+f"(x)::"memory");  // not read before the wait
#pragma unroll
  for (int i = 0; i < size; ++i) to[i] += from[i];
}

// Before stage k of a promoted sum: whether it begins the accumulators d anew, as every promotion_stages-th does. What
// they hold is waited for and moved to `sum` first. previous: the stage still being multiplied, -1 for none.
template <int size>
__device__ __forceinline__ bool begins_anew(int k, float (&sum)[size], float (&d)[size], int& previous, uint64_t* empty,
                                            bool elected) {
  if (k % promotion_stages != 0) return false;
  if (k > 0) {
    sm90::wgmma_wait<0>();
    if (elected) sm90::barrier_arrive(&empty[previous]);
    previous = -1;
    promote(sum, d);
  }
  return true;
}

// A block's shared memory: the ring of stages that the producer fills, `staging` behind it, and barriers.
struct Ring {
  uint8_t *a, *b, *staging;  // [stages][a_bytes], [stages][b_bytes], [staging_bytes]
  uint64_t *full, *empty;    // [stages]: loaded; read by both consumer warpgroups
  uint64_t* loaded;          // [more]: one arrival each
};
// Lays it out in `raw`, starts its barriers and lets one thread do `besides`; then all may use them.
template <class C, class F>
__device__ __forceinline__ Ring begin_ring(uint8_t* raw, int staging_bytes, int more, F&& besides) {
  Ring r;
  r.a = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  r.b = r.a + C::stages * C::a_bytes;
  r.staging = r.b + C::stages * C::b_bytes;
  r.full = reinterpret_cast<uint64_t*>(r.staging + staging_bytes);
  r.empty = r.full + C::stages;
  r.loaded = r.empty + C::stages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < C::stages; ++s) {
      sm90::barrier_init(&r.full[s], 1);
      sm90::barrier_init(&r.empty[s], 2);
    }
    for (int c = 0; c < more; ++c) sm90::barrier_init(&r.loaded[c], 1);
    sm90::fence_barrier_init();
    besides();
  }
  __syncthreads();
  return r;
}

}  // namespace assay::cuda
