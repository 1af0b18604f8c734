// Epilogues of the grouped GEMM: what happens to 64 x bn FP32 accumulators of a warpgroup on their way to memory.
// Included by grouped_kernel.cuh, which defines the configurations.
#pragma once

namespace assay::cuda {

struct EpilogueState {
  uint8_t* staging;       // this warpgroup's staging boxes
  uint64_t* hidden_full;  // completes when the tile of `hidden` is in the staging boxes
  int consumer;           // 0 | 1
  uint32_t hidden_phase = 0;
  float inverse_out_scale = 1;
  float amax = 0;
};

__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r0), "r"(r1),
               "r"(r2), "r"(r3)
               : "memory");
}
__device__ __forceinline__ void store_matrices_transposed(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2,
                                                          uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r0),
               "r"(r1), "r"(r2), "r"(r3)
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
__device__ __forceinline__ float2 unpack_e4m3(uint16_t codes) {
  uint32_t h;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"(codes));
  return __half22float2(*reinterpret_cast<__half2*>(&h));
}

// Within 1 ulp; the exact one has a slow path that costs this epilogue more than the product.
__device__ __forceinline__ float square_root(float x) {
  float r;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// A NaN wins: it must reach the amax, whose bits (0x7FFFFFFF) then stand above every number's.
__device__ __forceinline__ float max_or_nan(float x, float y) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y));
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
// Lane (t = lane/4, q) holds columns 2q, 2q+1 of rows t (low half) and t+8 (high half); give it rows 2t, 2t+1 of both
// columns, so that a transposing stmatrix of byte pairs lays 16 rows beside each other.
__device__ __forceinline__ uint32_t gather_rows(uint32_t pairs, int lane) {
  const int t = lane / 4, q = lane & 3;
  const uint32_t first = __shfl_sync(~0u, pairs, ((2 * t) & 7) * 4 + q);
  const uint32_t second = __shfl_sync(~0u, pairs, ((2 * t + 1) & 7) * 4 + q);
  return __byte_perm(first, second, t < 4 ? 0x5140 : 0x7362);
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

// Accumulators -> values to store: scale, activation, amax, and for FP8 division by the output's scale.
template <class C>
__device__ __forceinline__ void finish_values(float (&d)[C::bn / 2], EpilogueState& state, const GroupedParams& p,
                                              float scale, int column, int row) {
  const int thread = threadIdx.x & 127, lane = thread & 31;
  const int local_row = 16 * (thread / 32) + lane / 4;
  if constexpr (C::epilogue == Epilogue::relu2_grad) {
    const float hidden_scale = C::out == OutType::bf16 ? 1.0f : *p.hidden_scale;
    sm90::barrier_wait(state.hidden_full, state.hidden_phase);
    state.hidden_phase ^= 1;
    float row_sum[2] = {0, 0};
    // The byte of (row, column 2q) with the row's swizzle; 16-byte chunk c of the row lies at this address ^ c << 4.
    const uint32_t base = sm90::smem_address(state.staging) + local_row * 128 + ((local_row & 7) << 4) +
                          (2 * (lane & 3) * C::out_size & 15);
#pragma unroll
    for (int i = 0; i < C::bn / 4; ++i) {  // pairs of columns: block i / 2 of 8 columns, i & 1: rows +8
      const int byte = 8 * (i / 2) * C::out_size;
      const uint32_t at = (base ^ (byte & 127) / 16 << 4) + byte / 128 * C::box_bytes + (i & 1) * 8 * 128 + (byte & 15);
      float2 h;
      if constexpr (C::out == OutType::bf16) {
        uint32_t pair;
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(pair) : "r"(at));
        h = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
      } else {
        uint16_t pair;
        asm volatile("ld.shared.b16 %0, [%1];" : "=h"(pair) : "r"(at));
        h = unpack_e4m3(pair);
      }
      h.x *= hidden_scale, h.y *= hidden_scale;
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
  }
  if constexpr (C::epilogue == Epilogue::residual) {
    sm90::barrier_wait(state.hidden_full, state.hidden_phase);
    state.hidden_phase ^= 1;
    const uint32_t base = sm90::smem_address(state.staging) + local_row * 128 + ((local_row & 7) << 4) + 4 * (lane & 3);
#pragma unroll
    for (int i = 0; i < C::bn / 4; ++i) {
      const int byte = 16 * (i / 2);
      uint32_t pair;
      asm volatile("ld.shared.b32 %0, [%1];"
                   : "=r"(pair)
                   : "r"((base ^ (byte & 127) / 16 << 4) + byte / 128 * C::box_bytes + (i & 1) * 8 * 128));
      const float2 r = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
      d[2 * i] = p.alpha * scale * d[2 * i] + p.beta * r.x;
      d[2 * i + 1] = p.alpha * scale * d[2 * i + 1] + p.beta * r.y;
    }
  }
  if constexpr (C::out != OutType::bf16) {
    // Columns beyond n are products with the next group's weights: nothing stores them, but amax must not see them.
    if (column + C::bn > p.n) {
#pragma unroll
      for (int i = 0; i < C::bn / 2; ++i)
        if (column + 8 * (i / 4) >= p.n) d[i] = 0;
    }
  }
#pragma unroll
  for (int i = 0; i < C::bn / 2; ++i) {
    float v = d[i];
    if constexpr (!C::loads_hidden) v *= scale;
    if constexpr (C::epilogue == Epilogue::relu2) v = v < 0 ? 0.0f : v * v;  // a NaN stays one
    if constexpr (C::out != OutType::bf16) {
      state.amax = max_or_nan(state.amax, fabsf(v));
      v *= state.inverse_out_scale;
    }
    d[i] = v;
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
      store_matrices_transposed(base + out_row * stage_row_bytes + ((chunk ^ (out_row & 7)) << 4),
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

// FP8 transposed: bn rows of 64 bytes, 64-byte swizzle (16-byte chunk c of row r lies at c ^ (r / 2 & 3)).
template <class C>
__device__ __forceinline__ void store_transposed(const float (&d)[C::bn / 2], EpilogueState& state,
                                                 const CUtensorMap* map, int column, int row) {
  const int thread = threadIdx.x & 127, warp = thread / 32, lane = thread & 31;
  if (thread == 0) sm90::tma_store_wait_read<0>();
  sm90::named_barrier(1 + state.consumer, 128);
  const uint32_t base = sm90::smem_address(state.staging);
#pragma unroll
  for (int j = 0; j < C::bn / 8; j += 4) {
    uint32_t r[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const float* v = d + 4 * (j + m);
      r[m] = gather_rows(pack_fp8<C::out>(v[0], v[1]) | pack_fp8<C::out>(v[2], v[3]) << 16, lane);
    }
    const int out_row = 8 * j + lane;  // lane / 8 is the matrix, lane % 8 its row
    store_matrices_transposed(base + out_row * 64 + ((warp ^ (out_row / 2 & 3)) << 4), r[0], r[1], r[2], r[3]);
  }
  sm90::fence_async_shared();
  sm90::named_barrier(1 + state.consumer, 128);
  if (thread == 0) {
    sm90::tma_store(map, state.staging, row, column);
    sm90::tma_store_commit();
  }
}

__device__ __forceinline__ void publish_amax(float amax, float* out) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) amax = max_or_nan(amax, __shfl_xor_sync(~0u, amax, offset));
  // Non-negative floats order like their bits.
  if ((threadIdx.x & 31) == 0) atomicMax(reinterpret_cast<int*>(out), __float_as_int(amax));
}

}  // namespace assay::cuda
