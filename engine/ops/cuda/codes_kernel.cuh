// Grouped and dense FP8 GEMM for Hopper whose output is FP8 codes, row by row and, for the weight gradient, also
// transposed:
//   out[r, N] = codes(epilogue(sum_k a[r, k] * b[g, n, k])), transposed[N, r] = out[r, N]
// Groups, tiles, producer and ring of stages are those of grouped_kernel.cuh.
//
// What bounds it otherwise is the way of a warpgroup's accumulators through shared memory, so the rows of a stage lie
// there in another order than in memory (the tensor maps do that for nothing, see row_order_map): of b's rows, the
// columns of the output, such that a lane's accumulators are four neighbouring columns, one word of codes; of a's rows,
// where the transposed copy is wanted, such that its two rows are neighbours, one byte pair of the copy. Then no code
// ever changes lanes. Both orientations leave in two halves of 128 columns, and the second is computed while the copy
// engine reads the first.
#pragma once

#include "engine/ops/cuda/grouped_kernel.cuh"

namespace assay::cuda {

template <GemmType type_, OutType out_, Epilogue epilogue_, bool transposed_, int lead_ = 2>
struct CodesConfig {
  static constexpr GemmType type = type_;
  static constexpr OutType out = out_;
  static constexpr Epilogue epilogue = epilogue_;
  static constexpr bool transposed = transposed_, loads_hidden = epilogue_ == Epilogue::relu2_grad;
  static constexpr bool b_mn_major = false, symmetric = false, fp8 = true;
  static constexpr int bn = 256, half_columns = stage_row_bytes, half_bytes = 64 * stage_row_bytes;
  // Of a warpgroup: its tile of `hidden` and later of out; or half a tile in both orientations.
  static constexpr int staging = 2 * half_bytes;
  static constexpr int a_bytes = tile_m * stage_row_bytes, b_bytes = bn * stage_row_bytes;
  static constexpr int stages = 4, k_per_stage = stage_row_bytes;
  // The second warpgroup begins a tile when the first has begun this many stages of it. Neither gains on the other by
  // itself: in step they would both leave the tensor cores idle during their epilogues.
  static constexpr int lead = lead_;
  static_assert(lead < stages);
  static constexpr int smem = stages * (a_bytes + b_bytes) + 2 * staging + 1024 + 256;
  static_assert(type != GemmType::bf16 && out != OutType::bf16);
  static_assert(epilogue == Epilogue::relu2 || epilogue == Epilogue::relu2_grad);
  static_assert(smem + static_cast<int>(sizeof(TileWalk)) <= 227 * 1024);
};

struct CodesState {
  uint8_t* staging;       // this warpgroup's
  uint64_t* hidden_full;  // completes when the tile of `hidden` is in the staging
  int consumer;           // 0 | 1
  uint32_t hidden_phase = 0;
  float inverse_out_scale = 1;
  float hidden_scale = 1, hidden_root = 1;  // its square root
  float amax = 0;
};

__device__ __forceinline__ void load_matrices(uint32_t address, uint32_t* r) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
// Of a code's value, which is 0 or normal.
__device__ __forceinline__ float code_root(float x) {
  float r;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// Starts loading the tile of `hidden` into the staging while the products run. By the thread that issued the last
// tile's stores.
template <class C>
__device__ __forceinline__ void load_hidden_codes(const CodesState& state, const CUtensorMap* map, int column,
                                                  int row) {
  sm90::tma_store_wait_read<0>();
  sm90::barrier_expect(state.hidden_full, C::staging);
  for (int half = 0; half < 2; ++half)
    sm90::tma_load(state.staging + half * C::half_bytes, map, column + half * C::half_columns, row, state.hidden_full);
}

// What turns a tile's accumulators into codes, and what it leaves besides.
struct CodesTile {
  float scale;             // relu2: accumulator -> value. relu2_grad: accumulator * root of the code -> code
  float amax[2] = {0, 0};  // of either row. relu2: of the values. relu2_grad: of accumulator * root
  float row_sum[2] = {0, 0};
};

// Four accumulators -> four codes; hidden: the codes of h beside them.
template <class C>
__device__ __forceinline__ uint32_t make_codes(float v0, float v1, float v2, float v3, uint32_t hidden, int i,
                                               float inverse_out_scale, CodesTile& tile) {
  float v[4] = {v0, v1, v2, v3};
  if constexpr (C::loads_hidden) {
    const float2 low = unpack_e4m3(static_cast<uint16_t>(hidden)),
                 high = unpack_e4m3(static_cast<uint16_t>(hidden >> 16));
    const float h[4] = {low.x, low.y, high.x, high.y};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      tile.row_sum[i] += v[c] * h[c];
      v[c] *= code_root(h[c]);
      tile.amax[i] = max_or_nan(tile.amax[i], fabsf(v[c]));
      v[c] *= tile.scale;
    }
  } else {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float u = max_or_nan(v[c] * tile.scale, 0.0f);
      v[c] = u * u;
      tile.amax[i] = max_or_nan(tile.amax[i], v[c]);
      v[c] *= inverse_out_scale;
    }
  }
  return pack_fp8<C::out>(v[0], v[1]) | pack_fp8<C::out>(v[2], v[3]) << 16;
}

template <class C>
__device__ __forceinline__ void store_codes(float (&d)[C::bn / 2], CodesState& state, const GroupedParams& p,
                                            float scale, int column, int row, const CUtensorMap* map_out,
                                            const CUtensorMap* map_transposed) {
  const int thread = threadIdx.x & 127, warp = thread / 32, lane = thread & 31;
  const int matrix = lane / 8, r = lane & 7;  // whose row this lane addresses in ldmatrix and stmatrix
  // Matrices: this lane's first and second row of 16 columns, then those of the next 16.
  const int matrix_row = 16 * warp + (C::transposed ? 2 * r + (matrix & 1) : r + 8 * (matrix & 1));
  const uint32_t staging = sm90::smem_address(state.staging);
  const uint32_t at = staging + matrix_row * stage_row_bytes + ((matrix / 2 ^ (matrix_row & 7)) << 4);
  // Matrices of the copy: columns 4q, 4q + 1 of 16, then 4q + 2, 4q + 3; those of the next 16. Rows of 64 bytes with
  // the 64-byte swizzle.
  const int copy_row = 16 * (matrix / 2) + 2 * (matrix & 1) + 4 * (r / 2) + (r & 1);
  const uint32_t copy_at = staging + C::half_bytes + copy_row * 64 + ((warp ^ (copy_row / 2 & 3)) << 4);

  if (column + C::bn > p.n) {  // products with the next group's weights: nothing stores them, amax must not see them
#pragma unroll
    for (int i = 0; i < C::bn / 2; ++i)
      if (column + 16 * (i / 8) >= p.n) d[i] = 0;
  }
  CodesTile tile;
  const float factor = 2 * scale * state.hidden_root;
  tile.scale = C::loads_hidden ? factor * state.inverse_out_scale : scale;
  uint32_t hidden[2][16];
  if constexpr (C::loads_hidden) {
    sm90::barrier_wait(state.hidden_full, state.hidden_phase);
    state.hidden_phase ^= 1;
#pragma unroll
    for (int i = 0; i < 8; ++i) load_matrices((at ^ (i & 3) << 5) + i / 4 * C::half_bytes, &hidden[i / 4][4 * (i & 3)]);
    // Without the copy a warp overwrites only what itself has read.
    if constexpr (C::transposed) sm90::named_barrier(1 + state.consumer, 128);
  } else {
    if (thread == 0) sm90::tma_store_wait_read<0>();
    sm90::named_barrier(1 + state.consumer, 128);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t codes[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const float* v = d + 64 * half + 16 * i + 8 * (m / 2) + 2 * (m & 1);
        codes[i][m] = make_codes<C>(v[0], v[1], v[4], v[5], C::loads_hidden ? hidden[half][4 * i + m] : 0, m & 1,
                                    state.inverse_out_scale, tile);
      }
    }
    if (C::transposed && half == 1) {
      if (thread == 0) sm90::tma_store_wait_read<0>();
      sm90::named_barrier(1 + state.consumer, 128);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t* c = codes[i];
      store_matrices((at ^ i << 5) + (C::transposed ? 0 : half * C::half_bytes), c[0], c[1], c[2], c[3]);
      if constexpr (C::transposed)
        store_matrices_transposed(copy_at + i * 32 * 64, __byte_perm(c[0], c[1], 0x5140),
                                  __byte_perm(c[0], c[1], 0x7362), __byte_perm(c[2], c[3], 0x5140),
                                  __byte_perm(c[2], c[3], 0x7362));
    }
    if (!C::transposed && half == 0) continue;
    sm90::fence_async_shared();
    sm90::named_barrier(1 + state.consumer, 128);
    if (thread == 0) {
      if constexpr (C::transposed) {
        sm90::tma_store(map_out, state.staging, column + half * C::half_columns, row);
        sm90::tma_store(map_transposed, state.staging + C::half_bytes, row, column + half * C::half_columns);
      } else {
        sm90::tma_store(map_out, state.staging, column, row);
        sm90::tma_store(map_out, state.staging + C::half_bytes, column + C::half_columns, row);
      }
      sm90::tma_store_commit();
    }
  }
  const float amax = max_or_nan(tile.amax[0], tile.amax[1]);
  state.amax = max_or_nan(state.amax, C::loads_hidden ? amax * fabsf(factor) : amax);
  if constexpr (C::loads_hidden) {
    const int parts = (p.n + C::bn - 1) / C::bn;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = tile.row_sum[i] * (scale * state.hidden_scale);
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const int local_row = 16 * warp + (C::transposed ? 2 * (lane / 4) + i : lane / 4 + 8 * i);
      if ((lane & 3) == 0 && p.gate_partial != nullptr)
        p.gate_partial[static_cast<size_t>(row + local_row) * parts + column / C::bn] = sum;
    }
  }
}

template <class C>
__global__ __launch_bounds__(384, 1) void codes_kernel(const __grid_constant__ CUtensorMap map_a,
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
  uint64_t* leading = hidden_full + 2;
  __shared__ TileWalk walk;
  const int warpgroup = threadIdx.x / 128;
  const int columns = (p.n + C::bn - 1) / C::bn;

  if (threadIdx.x == 0) {
    for (int s = 0; s < C::stages; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], 2);
    }
    for (int c = 0; c < 2; ++c) sm90::barrier_init(&hidden_full[c], 1);
    sm90::barrier_init(leading, 1);
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
    // With fewer stages a tile the first could be two tiles ahead, which the barrier's one bit of phase cannot tell.
    const bool staggered = C::lead > 0 && p.k_steps >= C::stages;
    uint32_t lead_phase = 0;
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      const Tile tile = find_tile<C>(walk, p, columns, t, g);
      const int row = tile.row + consumer * 64;
      float d[C::bn / 2];
      int previous = -1;
      if (staggered && consumer == 1) sm90::barrier_wait(leading, lead_phase), lead_phase ^= 1;
      for (int k = 0; k < p.k_steps; ++k) {
        sm90::barrier_wait(&full[stage], phase);
        sm90::wgmma_fence();
        multiply_stage<C>(d, stage_a + stage * C::a_bytes + consumer * 64 * stage_row_bytes,
                          stage_b + stage * C::b_bytes, k == 0);
        sm90::wgmma_commit();
        if (staggered && consumer == 0 && elected && k == C::lead - 1) sm90::barrier_arrive(leading);
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
