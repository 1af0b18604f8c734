// Grouped, batched and dense GEMM for Hopper: for every group g and its rows r,
//   out[r, N] = epilogue(sum_k a[r, k] * b[g, n, k])      (b K-major: fprop, and dgrad in FP8)
//   out[r, N] = epilogue(sum_k a[r, k] * b[g, k, n])      (b MN-major, BF16 only: dgrad without a transposed copy)
// A dense product is one group, a batched one has groups of equal size.
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
// relu2: out = relu(acc)^2. relu2_grad: acc is dL/dh and `hidden` holds h = relu(z)^2; out = dL/dz = acc * 2*sqrt(h),
// and the row sums of acc * h, from which the router's gradient follows, go to gate_partial.
// residual: out = alpha * acc + beta * hidden, BF16.
enum class Epilogue { none, relu2, relu2_grad, residual };
// What one FP8 scale covers. rowwise: a row of a, a row of b (a column of out). blockwise: 1x128 of a, 128x128 of b.
enum class Scales { tensorwise, rowwise, blockwise };

constexpr int tile_m = 128;           // rows per block: 64 per consumer warpgroup
constexpr int stage_row_bytes = 128;  // one swizzle row of K per stage
constexpr int max_groups = 128;       // bounds the offsets kept in shared memory

struct GroupedParams {
  const int32_t*
      start;            // [groups], multiples of tile_m; null: group g owns rows [g * group_rows, (g + 1) * group_rows)
  const int32_t* rows;  // [groups]
  int groups;
  int group_rows;
  int n;                      // columns of out
  bool rows_first;            // one group without start: the tiles of a column follow each other, see find_tile
  int k_steps;                // stages along K, rounded up
  const float* a_scale;       // FP8: dequantisation scale [1] of a; rowwise [a_rows], blockwise [a_rows, k_steps]
  const float* b_scale;       // FP8: [groups]; rowwise [groups, n], blockwise [groups, ceil(n / 128), k_steps]
  const float* out_scale;     // FP8 out: scale [1] of out (value = code * scale); 0 counts as 1
  float* out_amax;            // FP8 out: raised to max |out|
  const float* hidden_scale;  // relu2_grad with FP8 hidden: scale [1]
  float* gate_partial;  // relu2_grad: [rows up to 128, ceil(n / bn)], the sum over one tile's columns; null: not wanted
  float alpha, beta;    // residual
  float *used_scale, *used_scale_t;  // FP8 out: receive the scale of out; may be null
  int a_rows;                        // all rows of a: rowwise and blockwise scales end there
};

// transposed_: FP8 out is also stored as [n, rows], the K-major operand of the FP8 weight gradient.
// symmetric_: out of every group is symmetric (n = group_rows, start = null): only the tiles from the diagonal to the
// right are computed, and stored a second time as their mirror image.
template <GemmType type_, OutType out_, Epilogue epilogue_, bool transposed_ = false, bool b_mn_major_ = false,
          int bn_ = 256, bool symmetric_ = false, Scales scales_ = Scales::tensorwise>
struct GroupedConfig {
  static constexpr GemmType type = type_;
  static constexpr OutType out = out_;
  static constexpr Epilogue epilogue = epilogue_;
  static constexpr bool transposed = transposed_, b_mn_major = b_mn_major_, symmetric = symmetric_;
  static constexpr Scales scales = scales_;
  static constexpr bool loads_hidden = epilogue_ == Epilogue::relu2_grad || epilogue_ == Epilogue::residual;
  static constexpr int bn = bn_;
  static constexpr bool fp8 = type != GemmType::bf16;
  static constexpr int out_size = out == OutType::bf16 ? 2 : 1;
  static constexpr int box_columns = stage_row_bytes / out_size;  // one store box: 64 rows x 128 B
  static constexpr int boxes = bn / box_columns;
  static constexpr int box_bytes = 64 * stage_row_bytes;
  // Staging of one warpgroup: two boxes in flight, or the whole tile where `hidden` (of out's width) is loaded into it.
  static constexpr int staging_boxes = loads_hidden ? boxes : 2;
  static constexpr int staging = staging_boxes * box_bytes;
  static constexpr int a_bytes = tile_m * stage_row_bytes, b_bytes = bn * stage_row_bytes;
  // A block has 227 KiB: the tile walk, 1 KiB to align the rest, the barriers, the staging, and as many stages as fit.
  static constexpr int besides = 2 * staging + 1024 + 256, tile_walk = 8 * max_groups + 16;
  static constexpr int stages = (227 * 1024 - tile_walk - besides) / (a_bytes + b_bytes);
  static constexpr int smem = stages * (a_bytes + b_bytes) + besides;
  static constexpr int k_per_stage = fp8 ? 128 : 64;
  static_assert(bn % box_columns == 0 && stages >= 3);
  static_assert(!b_mn_major || !fp8, "wgmma reads FP8 K-major only");
  static_assert(epilogue != Epilogue::residual || out == OutType::bf16);
  static_assert(!symmetric || (out == OutType::bf16 && bn % tile_m == 0), "blocks of bn x bn on the diagonal");
  static_assert(!transposed || (out_size == 1 && bn * 64 == staging),
                "the transposed tile is staged in the same bytes");
  static_assert(scales == Scales::tensorwise || (fp8 && out == OutType::bf16));
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
  while (t >= walk.prefix[group + 1]) ++group;  // tiles come in rising order
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

}  // namespace assay::cuda

#include "engine/ops/cuda/grouped_epilogue.cuh"
#include "engine/ops/cuda/grouped_scales.cuh"

namespace assay::cuda {

template <class C>
__global__ __launch_bounds__(384, 1) void grouped_kernel(const __grid_constant__ CUtensorMap map_a,
                                                         const __grid_constant__ CUtensorMap map_b,
                                                         const __grid_constant__ CUtensorMap map_out,
                                                         const __grid_constant__ CUtensorMap map_transposed,
                                                         const __grid_constant__ CUtensorMap map_hidden,
                                                         GroupedParams p) {
  extern __shared__ uint8_t raw[];
  uint8_t* smem = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  uint8_t* stage_a = smem;
  uint8_t* stage_b = smem + C::stages * C::a_bytes;
  uint8_t* staging = stage_b + C::stages * C::b_bytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(staging + 2 * C::staging);
  uint64_t* empty = full + C::stages;
  uint64_t* hidden_full = empty + C::stages;  // [2], one per consumer warpgroup
  __shared__ TileWalk walk;

  const int warpgroup = threadIdx.x / 128;
  const int columns = (p.n + C::bn - 1) / C::bn;

  if (threadIdx.x == 0) {
    for (int s = 0; s < C::stages; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], 2);
    }
    for (int c = 0; c < 2; ++c) sm90::barrier_init(&hidden_full[c], 1);
    sm90::fence_barrier_init();
    int total = 0;
    for (int g = 0; p.start != nullptr && g < p.groups; ++g) {
      walk.prefix[g] = total;
      walk.start[g] = p.start[g];
      total += (p.rows[g] + tile_m - 1) / tile_m * columns;
      walk.prefix[g + 1] = total;
    }
  }
  __syncthreads();

  const int tiles = p.start != nullptr ? walk.prefix[p.groups] : p.groups * tiles_per_group<C>(p, columns);

  if (warpgroup == 0) {
    sm90::registers_give<40>();
    if (threadIdx.x == 0) {
      int stage = 0;
      uint32_t phase = 0;
      int g = 0;
      for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile = find_tile<C>(walk, p, columns, t, g);
        for (int k = 0; k < p.k_steps; ++k) {
          sm90::barrier_wait(&empty[stage], phase ^ 1);
          sm90::barrier_expect(&full[stage], C::a_bytes + C::b_bytes);
          const int x = k * C::k_per_stage;
          sm90::tma_load(stage_a + stage * C::a_bytes, &map_a, x, tile.row, &full[stage]);
          uint8_t* b = stage_b + stage * C::b_bytes;
          if constexpr (C::b_mn_major) {
            const int first = tile.group * p.k_steps * C::k_per_stage + x;
            for (int i = 0; i < C::bn / 64; ++i)
              sm90::tma_load(b + i * 8192, &map_b, tile.column + 64 * i, first, &full[stage]);
          } else {
            sm90::tma_load(b, &map_b, x, tile.group * p.n + tile.column, &full[stage]);
          }
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
      }
    }
  } else {
    sm90::registers_take<232>();
    const int consumer = warpgroup - 1;
    const bool elected = (threadIdx.x & 127) == 0;
    EpilogueState state{staging + consumer * C::staging, &hidden_full[consumer], consumer};
    if constexpr (C::out != OutType::bf16) {
      const float given = *p.out_scale, out_scale = given > 0 ? given : 1.0f;
      state.inverse_out_scale = 1.0f / out_scale;
      if (blockIdx.x == 0 && threadIdx.x == 128) {
        if (p.used_scale != nullptr) *p.used_scale = out_scale;
        if (p.used_scale_t != nullptr) *p.used_scale_t = out_scale;
      }
    }
    int stage = 0;
    uint32_t phase = 0;
    int g = 0;
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      const Tile tile = find_tile<C>(walk, p, columns, t, g);
      const int row = tile.row + consumer * 64, column = tile.column;
      float d[C::bn / 2];
      if constexpr (C::scales == Scales::blockwise) {
        const BlockScales<C> scales(p, tile, row);
        const ConsumedStages<C> stages{
            stage_a + consumer * 64 * stage_row_bytes, stage_b, full, empty, elected, stage, phase};
        const auto behind = [&](int k) {
          if constexpr (C::loads_hidden)
            if (k == min(2, p.k_steps - 1)) load_hidden<C>(state, &map_hidden, column, row);
        };
#pragma unroll
        for (int i = 0; i < C::bn / 2; ++i) d[i] = 0;
        if constexpr (C::bn == scale_block)
          multiply_ahead<C>(d, p, scales, stages, behind);
        else
          multiply_in_parts<C>(d, p, scales, stages, behind);
      } else {
        int previous = -1;
        for (int k = 0; k < p.k_steps; ++k) {
          sm90::barrier_wait(&full[stage], phase);
          sm90::wgmma_fence();
          multiply_stage<C>(d, stage_a + stage * C::a_bytes + consumer * 64 * stage_row_bytes,
                            stage_b + stage * C::b_bytes, k == 0);
          sm90::wgmma_commit();
          // Not at once: it waits for the last tile's stores to leave the staging, which by now they have.
          if constexpr (C::loads_hidden)
            if (k == min(2, p.k_steps - 1)) load_hidden<C>(state, &map_hidden, column, row);
          if (previous >= 0) {
            sm90::wgmma_wait<1>();
            if (elected) sm90::barrier_arrive(&empty[previous]);
          }
          previous = stage;
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
        sm90::wgmma_wait<0>();
        if (elected) sm90::barrier_arrive(&empty[previous]);
      }
      if constexpr (C::scales == Scales::rowwise) scale_rows_and_columns<C>(d, p, tile, row);
      const float scale = C::fp8 && C::scales == Scales::tensorwise ? *p.a_scale * p.b_scale[tile.group] : 1.0f;
      finish_values<C>(d, state, p, scale, column, row);
      store_tile<C>(d, state, &map_out, column, row);
      if constexpr (C::transposed) store_transposed<C>(d, state, &map_transposed, column, row);
      if constexpr (C::symmetric) store_mirrored<C>(d, state, p, &map_out, column, row, tile.group * p.group_rows);
    }
    if constexpr (C::out != OutType::bf16) publish_amax(state.amax, p.out_amax);
    if (elected) sm90::tma_store_wait_read<0>();
  }
}

}  // namespace assay::cuda
