// Epilogue of the products into FP8 codes: 64 x 256 FP32 accumulators of a warpgroup -> codes, row by row and, where C
// says so, transposed. C is a CodesConfig (codes_kernel.cuh). A lane holds the accumulators of four neighbouring
// columns and, with the copy, of two neighbouring rows.
#pragma once

#include "engine/ops/cuda/product.cuh"

namespace assay::cuda {

struct CodesState {
  uint8_t* staging;       // this warpgroup's
  uint64_t* hidden_full;  // completes when the tile of `hidden` is in the staging
  int consumer;           // 0 | 1
  uint32_t hidden_phase = 0;
  float inverse_out_scale = 1;
  float hidden_scale = 1, hidden_root = 1;  // its square root
  float amax = 0;
};

template <GemmType type>
__device__ __forceinline__ uint32_t pack_codes(float lo, float hi) {
  uint16_t r;
  if constexpr (type == GemmType::e4m3_e4m3)
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
  else
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
  return r;
}
__device__ __forceinline__ float2 unpack_e4m3(uint16_t codes) {
  uint32_t h;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"(codes));
  return __half22float2(*reinterpret_cast<__half2*>(&h));
}
// A NaN wins: it must reach the amax, whose bits (0x7FFFFFFF) then stand above every number's.
__device__ __forceinline__ float max_or_nan(float x, float y) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y));
  return r;
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
  return pack_codes<C::type>(v[0], v[1]) | pack_codes<C::type>(v[2], v[3]) << 16;
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
    for (int i = 0; i < 8; ++i)
      sm90::load_matrices((at ^ (i & 3) << 5) + i / 4 * C::half_bytes, &hidden[i / 4][4 * (i & 3)]);
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
      sm90::store_matrices((at ^ i << 5) + (C::transposed ? 0 : half * C::half_bytes), c[0], c[1], c[2], c[3]);
      if constexpr (C::transposed)
        sm90::store_matrices_transposed(copy_at + i * 32 * 64, __byte_perm(c[0], c[1], 0x5140),
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

__device__ __forceinline__ void publish_amax(float amax, float* out) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) amax = max_or_nan(amax, __shfl_xor_sync(~0u, amax, offset));
  // Non-negative floats order like their bits.
  if ((threadIdx.x & 31) == 0) atomicMax(reinterpret_cast<int*>(out), __float_as_int(amax));
}

}  // namespace assay::cuda
