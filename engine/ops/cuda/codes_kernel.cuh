// Grouped and dense FP8 GEMM for Hopper whose output is FP8 codes in the format of `a`, row by row and, for the weight
// gradient, also transposed:
//   out[r, N] = codes(epilogue(sum_k a[r, k] * b[g, n, k])), transposed[N, r] = out[r, N]
// Groups, tiles, producer and ring of stages are those of grouped_kernel.cuh.
//
// What bounds it otherwise is the way of a warpgroup's accumulators through shared memory, so the rows of a stage lie
// there in another order than in memory (the tensor maps do that for nothing, see row_order_map): of b's rows, the
// columns of the output, such that a lane's accumulators are four neighbouring columns, one word of codes; of a's rows,
// where the transposed copy is wanted, such that its two rows are neighbours, one byte pair of the copy. Then no code
// ever changes lanes. Both orientations leave in two halves of 128 columns, and the second is computed while the copy
// engine reads the first.
//
// The warpgroups drift apart by themselves here too: holding the second two or three stages behind gained nothing or
// lost 5 % (docs/benchmarks.md).
#pragma once

#include "engine/ops/cuda/codes_epilogue.cuh"

namespace assay::cuda {

// epilogue: relu2 or relu2_grad, whose `hidden` is codes in e4m3. Tensorwise scales.
template <GemmType type_, Epilogue epilogue_, bool transposed_>
struct CodesConfig {
  static constexpr GemmType type = type_;
  static constexpr Epilogue epilogue = epilogue_;
  static constexpr bool transposed = transposed_, loads_hidden = epilogue_ == Epilogue::relu2_grad;
  static constexpr bool b_mn_major = false, symmetric = false;
  static constexpr int bn = 256, half_columns = stage_row_bytes, half_bytes = 64 * stage_row_bytes;
  // Of a warpgroup: its tile of `hidden` and later of out; or half a tile in both orientations.
  static constexpr int staging = 2 * half_bytes;
  static constexpr int a_bytes = tile_m * stage_row_bytes, b_bytes = bn * stage_row_bytes;
  static constexpr int stages = 4, k_per_stage = stage_row_bytes;
  static constexpr int smem = stages * (a_bytes + b_bytes) + 2 * staging + 1024 + 256;
  static_assert((epilogue == Epilogue::relu2 && type == GemmType::e4m3_e4m3) ||
                (epilogue == Epilogue::relu2_grad && type != GemmType::bf16));
  static_assert(smem + static_cast<int>(sizeof(TileWalk)) <= 227 * 1024);
};

template <class C>
__global__ __launch_bounds__(384, 1) void codes_kernel(const __grid_constant__ CUtensorMap map_a,
                                                       const __grid_constant__ CUtensorMap map_b,
                                                       const __grid_constant__ CUtensorMap map_out,
                                                       const __grid_constant__ CUtensorMap map_transposed,
                                                       const __grid_constant__ CUtensorMap map_hidden,
                                                       GroupedParams p) {
  extern __shared__ uint8_t raw[];
  __shared__ TileWalk walk;
  const int warpgroup = threadIdx.x / 128;
  const int columns = (p.n + C::bn - 1) / C::bn;
  const auto [stage_a, stage_b, staging, full, empty, hidden_full] =  // hidden_full: one per consumer warpgroup
      begin_ring<C>(raw, 2 * C::staging, 2, [&] { begin_walk(walk, p, columns); });
  const int tiles = count_tiles<C>(walk, p, columns);
  int stage = 0, g = 0;
  uint32_t phase = 0;

  if (warpgroup == 0) {
    sm90::registers_give<40>();
    if (threadIdx.x == 0) {
      for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile = find_tile<C>(walk, p, columns, t, g);
        for (int k = 0; k < p.k_steps; ++k) {
          sm90::barrier_wait(&empty[stage], phase ^ 1);
          sm90::barrier_expect(&full[stage], C::a_bytes + C::b_bytes);
          const int x = k * C::k_per_stage;
          uint8_t* a = stage_a + stage * C::a_bytes;
          if constexpr (C::transposed)
            sm90::tma_load_4d(a, &map_a, x, 0, 0, tile.row / 16, &full[stage]);
          else
            sm90::tma_load(a, &map_a, x, tile.row, &full[stage]);
          sm90::tma_load_5d(stage_b + stage * C::b_bytes, &map_b, x, 0, 0, 0, (tile.group * p.n + tile.column) / 16,
                            &full[stage]);
          // The consumers ask for it later, when the staging is free; from memory it would come too late.
          if (C::loads_hidden && k == 0)
            for (int i = 0; i < 4; ++i)
              sm90::tma_prefetch(&map_hidden, tile.column + i / 2 * C::half_columns, tile.row + (i & 1) * 64);
          if (++stage == C::stages) stage = 0, phase ^= 1;
        }
      }
    }
  } else {
    sm90::registers_take<232>();
    const int consumer = warpgroup - 1;
    const bool elected = (threadIdx.x & 127) == 0;
    CodesState state{staging + consumer * C::staging, &hidden_full[consumer], consumer};
    const float given = *p.out_scale, out_scale = given > 0 ? given : 1.0f;
    state.inverse_out_scale = 1.0f / out_scale;
    if constexpr (C::loads_hidden) state.hidden_scale = *p.hidden_scale, state.hidden_root = sqrtf(state.hidden_scale);
    if (blockIdx.x == 0 && threadIdx.x == 128) {
      if (p.used_scale != nullptr) *p.used_scale = out_scale;
      if (p.used_scale_t != nullptr) *p.used_scale_t = out_scale;
    }
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      const Tile tile = find_tile<C>(walk, p, columns, t, g);
      const int row = tile.row + consumer * 64;
      float d[C::bn / 2];
      int previous = -1;
      for (int k = 0; k < p.k_steps; ++k) {
        sm90::barrier_wait(&full[stage], phase);
        sm90::wgmma_fence();
        multiply_stage<C>(d, stage_a + stage * C::a_bytes + consumer * 64 * stage_row_bytes,
                          stage_b + stage * C::b_bytes, k == 0);
        sm90::wgmma_commit();
        // Not at once: it waits for the last tile's stores to leave the staging.
        if (C::loads_hidden && elected && k == min(1, p.k_steps - 1))
          load_hidden_codes<C>(state, &map_hidden, tile.column, row);
        if (previous >= 0) {
          sm90::wgmma_wait<1>();
          if (elected) sm90::barrier_arrive(&empty[previous]);
        }
        previous = stage;
        if (++stage == C::stages) stage = 0, phase ^= 1;
      }
      sm90::wgmma_wait<0>();
      if (elected) sm90::barrier_arrive(&empty[previous]);
      store_codes<C>(d, state, p, *p.a_scale * p.b_scale[tile.group], tile.column, row, &map_out, &map_transposed);
    }
    publish_amax(state.amax, p.out_amax);
    if (elected) sm90::tma_store_wait_read<0>();
  }
}

}  // namespace assay::cuda
