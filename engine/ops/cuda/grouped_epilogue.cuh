// Epilogues of the products into BF16: what happens to 64 x bn FP32 accumulators of a warpgroup on their way to memory.
// C is a GroupedConfig (grouped_kernel.cuh).
#pragma once

#include "engine/ops/cuda/product.cuh"

namespace assay::cuda {

struct EpilogueState {
  uint8_t* staging;       // this warpgroup's staging boxes
  uint64_t* hidden_full;  // completes when the tile of `hidden` is in the staging boxes
  int consumer;           // 0 | 1
  uint32_t hidden_phase = 0;
};

__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

// Within 1 ulp; the exact one has a slow path that costs this epilogue more than the product.
__device__ __forceinline__ float square_root(float x) {
  float r;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// Starts loading the tile of `hidden` into the staging boxes while the products run.
template <class C>
__device__ __forceinline__ void load_hidden(EpilogueState& state, const CUtensorMap* map, int column, int row) {
  if ((threadIdx.x & 127) == 0) {
    sm90::tma_store_wait_read<0>();
    sm90::barrier_expect(state.hidden_full, C::staging);
    for (int box = 0; box < C::boxes; ++box)
      sm90::tma_load(state.staging + box * C::box_bytes, map, column + box * C::box_columns, row, state.hidden_full);
  }
}

// The pair i of a thread's tile of `hidden`, beside accumulators 2i and 2i + 1: block i / 2 of 8 columns, i & 1: rows
// +8. base: the bytes of (the thread's row, column 2q) with the row's swizzle; 16-byte chunk c lies at base ^ c << 4.
template <class C>
__device__ __forceinline__ float2 hidden_pair(uint32_t base, int i) {
  const int byte = 16 * (i / 2);
  uint32_t pair;
  asm volatile("ld.shared.b32 %0, [%1];"
               : "=r"(pair)
               : "r"((base ^ (byte & 127) / 16 << 4) + byte / 128 * C::box_bytes + (i & 1) * 8 * 128));
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}

// Accumulators -> values to store: scale, activation or what `hidden` adds.
template <class C>
__device__ __forceinline__ void finish_values(float (&d)[C::bn / 2], EpilogueState& state, const GroupedParams& p,
                                              float scale, int column, int row) {
  const int thread = threadIdx.x & 127, lane = thread & 31;
  const int local_row = 16 * (thread / 32) + lane / 4;
  const uint32_t base = sm90::smem_address(state.staging) + local_row * 128 + ((local_row & 7) << 4) + 4 * (lane & 3);
  if constexpr (C::loads_hidden) {
    sm90::barrier_wait(state.hidden_full, state.hidden_phase);
    state.hidden_phase ^= 1;
  }
  if constexpr (C::epilogue == Epilogue::relu2_grad) {
    float row_sum[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < C::bn / 4; ++i) {
      const float2 h = hidden_pair<C>(base, i);
      const float u0 = d[2 * i] * scale, u1 = d[2 * i + 1] * scale;
      row_sum[i & 1] += u0 * h.x + u1 * h.y;
      d[2 * i] = u0 * 2 * square_root(h.x);
      d[2 * i + 1] = u1 * 2 * square_root(h.y);
    }
    const int parts = (p.n + C::bn - 1) / C::bn;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      row_sum[i] += __shfl_xor_sync(~0u, row_sum[i], 1);
      row_sum[i] += __shfl_xor_sync(~0u, row_sum[i], 2);
      if ((lane & 3) == 0 && p.gate_partial != nullptr)
        p.gate_partial[static_cast<size_t>(row + local_row + 8 * i) * parts + column / C::bn] = row_sum[i];
    }
  } else if constexpr (C::epilogue == Epilogue::residual) {
#pragma unroll
    for (int i = 0; i < C::bn / 4; ++i) {
      const float2 r = hidden_pair<C>(base, i);
      d[2 * i] = p.alpha * scale * d[2 * i] + p.beta * r.x;
      d[2 * i + 1] = p.alpha * scale * d[2 * i + 1] + p.beta * r.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < C::bn / 2; ++i) {
      d[i] *= scale;
      if constexpr (C::epilogue == Epilogue::relu2) d[i] = d[i] < 0 ? 0.0f : d[i] * d[i];  // a NaN stays one
    }
  }
}

// Row-major: box by box through the staging buffers.
template <class C>
__device__ __forceinline__ void store_tile(const float (&d)[C::bn / 2], EpilogueState& state, const CUtensorMap* map,
                                           int column, int row) {
  const int thread = threadIdx.x & 127, lane = thread & 31;
  const int local_row = 16 * (thread / 32) + (lane / 8 & 1) * 8 + (lane & 7);
#pragma unroll
  for (int box = 0; box < C::boxes; ++box) {
    uint8_t* buffer = state.staging + box % C::staging_boxes * C::box_bytes;
    if (thread == 0) sm90::tma_store_wait_read<C::staging_boxes - 1>();
    sm90::named_barrier(1 + state.consumer, 128);
    const uint32_t row_address = sm90::smem_address(buffer) + local_row * stage_row_bytes;
#pragma unroll
    for (int j = 0; j < 8; j += 2) {  // two 8-column blocks = two 16-byte chunks
      const float* v = d + 4 * (8 * box + j);
      const int chunk = j + lane / 16;
      sm90::store_matrices(row_address + ((chunk ^ (local_row & 7)) << 4), pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                           pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
    }
    sm90::fence_async_shared();
    sm90::named_barrier(1 + state.consumer, 128);
    if (thread == 0) {
      sm90::tma_store(map, buffer, column + box * C::box_columns, row);
      sm90::tma_store_commit();
    }
  }
}

// Symmetric: the tile's transpose, below the diagonal, unless the tile is itself of a block on the diagonal. `first` is
// the group's first row. n is a multiple of 64, so a box lies inside the group or wholly beyond its end.
template <class C>
__device__ __forceinline__ void store_mirrored(const float (&d)[C::bn / 2], EpilogueState& state,
                                               const GroupedParams& p, const CUtensorMap* map, int column, int row,
                                               int first) {
  const int thread = threadIdx.x & 127, warp = thread / 32, lane = thread & 31;
  if ((row - first) / C::bn * C::bn == column) return;
#pragma unroll
  for (int box = 0; box < C::boxes; ++box) {
    if (column + box * 64 >= p.n) return;
    uint8_t* buffer = state.staging + box % C::staging_boxes * C::box_bytes;
    if (thread == 0) sm90::tma_store_wait_read<C::staging_boxes - 1>();
    sm90::named_barrier(1 + state.consumer, 128);
    const uint32_t base = sm90::smem_address(buffer);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {  // two 8-column blocks, 16 rows: chunks 2 * warp and 2 * warp + 1 of the image
      const float* v = d + 4 * (8 * box + j);
      const int out_row = 8 * (j + lane / 16) + (lane & 7), chunk = 2 * warp + (lane / 8 & 1);
      sm90::store_matrices_transposed(base + out_row * stage_row_bytes + ((chunk ^ (out_row & 7)) << 4),
                                      pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                                      pack_bf16(v[6], v[7]));
    }
    sm90::fence_async_shared();
    sm90::named_barrier(1 + state.consumer, 128);
    if (thread == 0) {
      sm90::tma_store(map, buffer, row - first, first + column + box * 64);
      sm90::tma_store_commit();
    }
  }
}

}  // namespace assay::cuda
