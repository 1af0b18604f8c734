// Grouped, batched and dense GEMM for Hopper into BF16: for every group g and its rows r,
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

#include "engine/ops/cuda/grouped_epilogue.cuh"
#include "engine/ops/cuda/grouped_scales.cuh"
#include "engine/ops/cuda/rope_epilogue.cuh"

namespace assay::cuda {

// symmetric_: out of every group is symmetric (n = group_rows, start = null): only the tiles from the diagonal to the
// right are computed, and stored a second time as their mirror image.
// promoted_: the sum moves from the tensor cores' accumulators to other registers every promotion_stages.
template <GemmType type_, Epilogue epilogue_, bool b_mn_major_ = false, int bn_ = 256, bool symmetric_ = false,
          Scales scales_ = Scales::tensorwise, bool promoted_ = false>
struct GroupedConfig {
  static constexpr GemmType type = type_;
  static constexpr Epilogue epilogue = epilogue_;
  static constexpr bool b_mn_major = b_mn_major_, symmetric = symmetric_;
  static constexpr Scales scales = scales_;
  static constexpr bool promoted = promoted_;
  static constexpr bool loads_hidden = epilogue_ == Epilogue::relu2_grad || epilogue_ == Epilogue::residual;
  static constexpr int bn = bn_;
  static constexpr bool fp8 = type != GemmType::bf16;
  static constexpr int box_columns = stage_row_bytes / 2;  // one store box: 64 rows x 128 B
  static constexpr int boxes = bn / box_columns;
  static constexpr int box_bytes = 64 * stage_row_bytes;
  // Staging of one warpgroup: two boxes in flight, or the whole tile where `hidden` is loaded into it.
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
  static_assert(!symmetric || bn % tile_m == 0, "blocks of bn x bn on the diagonal");
  static_assert((scales == Scales::tensorwise && !promoted) || fp8);
  static_assert(!promoted || scales != Scales::blockwise);
  static_assert(epilogue != Epilogue::qk_rope || (bn == 2 * rope_head && scales == Scales::tensorwise && !symmetric));
};

template <class C>
__global__ __launch_bounds__(384, 1) void grouped_kernel(const __grid_constant__ CUtensorMap map_a,
                                                         const __grid_constant__ CUtensorMap map_b,
                                                         const __grid_constant__ CUtensorMap map_out,
                                                         const __grid_constant__ CUtensorMap map_hidden,
                                                         GroupedParams p) {
  extern __shared__ uint8_t raw[];
  __shared__ TileWalk walk;
  const int warpgroup = threadIdx.x / 128;
  const int columns = (p.n + C::bn - 1) / C::bn;
  const auto [stage_a, stage_b, staging, full, empty, hidden_full] =  // hidden_full: one per consumer warpgroup
      begin_ring<C>(raw, 2 * C::staging, 2, [&] { begin_walk(walk, p, columns); });
  const int tiles = count_tiles<C>(walk, p, columns);

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
    int stage = 0;
    uint32_t phase = 0;
    int g = 0;
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      const Tile tile = find_tile<C>(walk, p, columns, t, g);
      const int row = tile.row + consumer * 64, column = tile.column;
      float d[C::bn / 2];
      [[maybe_unused]] Angles angles;
      // Not at once: it waits for the last tile's stores to leave the staging, which by then they have.
      const auto behind = [&](int k) {
        if constexpr (C::loads_hidden)
          if (k == min(2, p.k_steps - 1)) load_hidden<C>(state, &map_hidden, column, row);
      };
      if constexpr (C::scales == Scales::blockwise) {
        const BlockScales<C> scales(p, tile, row);
        const ConsumedStages<C> stages{
            stage_a + consumer * 64 * stage_row_bytes, stage_b, full, empty, elected, stage, phase};
#pragma unroll
        for (int i = 0; i < C::bn / 2; ++i) d[i] = 0;
        if constexpr (C::bn == scale_block)
          multiply_ahead<C>(d, p, scales, stages, behind);
        else
          multiply_in_parts<C>(d, p, scales, stages, behind);
      } else {
        int previous = -1;
        [[maybe_unused]] float promoted[C::bn / 2] = {};
        for (int k = 0; k < p.k_steps; ++k) {
          bool anew = k == 0;
          if constexpr (C::promoted) anew = begins_anew(k, promoted, d, previous, empty, elected);
          sm90::barrier_wait(&full[stage], phase);
          sm90::wgmma_fence();
          multiply_stage<C>(d, stage_a + stage * C::a_bytes + consumer * 64 * stage_row_bytes,
                            stage_b + stage * C::b_bytes, anew);
          sm90::wgmma_commit();
          behind(k);
          if (previous >= 0) {
            sm90::wgmma_wait<1>();
            if (elected) sm90::barrier_arrive(&empty[previous]);
          }
          previous = stage;
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
        if constexpr (C::epilogue == Epilogue::qk_rope)
          if (rotates(p.rope, column)) load_angles(angles, p.rope, thread_row(row));
        sm90::wgmma_wait<0>();
        if (elected) sm90::barrier_arrive(&empty[previous]);
        if constexpr (C::promoted) promote(d, promoted);
      }
      if constexpr (C::scales == Scales::rowwise) scale_rows_and_columns<C>(d, p, tile, row);
      const float scale = C::fp8 && C::scales == Scales::tensorwise ? *p.a_scale * p.b_scale[tile.group] : 1.0f;
      if constexpr (C::epilogue == Epilogue::qk_rope)
        rotate_heads(d, angles, p, scale, column, row);
      else
        finish_values<C>(d, state, p, scale, column, row);
      store_tile<C>(d, state, &map_out, column, row);
      if constexpr (C::symmetric) store_mirrored<C>(d, state, p, &map_out, column, row, tile.group * p.group_rows);
    }
    if (elected) sm90::tma_store_wait_read<0>();
  }
}

}  // namespace assay::cuda
