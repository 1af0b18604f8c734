// What kernels share that write FP8 codes both ways: the maximum of a block, and codes on their way from the rows that
// a block works on to runs of the transposed matrix.
#pragma once

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/norm.h"
#include "engine/ops/quantize.h"

namespace assay::cuda {

// Maximum over the block's `warps` warps, to all of its threads.
template <int warps>
__device__ __forceinline__ int block_max(int x) {
  __shared__ int parts[warps];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < warps; ++i) x = max(x, parts[i]);
  return x;
}

// Raises a maximum that thousands of blocks raise: a look at it first spares most of them the atomic.
__device__ __forceinline__ void raise(int* maximum, int value) {
  if (*static_cast<volatile int*>(maximum) < value) atomicMax(maximum, value);
}

// Codes of one tensor [N, columns] with one delayed scale, made by its producer.
struct ProducedFp8 {
  uint8_t *codes = nullptr, *transposed = nullptr;  // [N, columns], [columns, N]; one may be null
  float *codes_scale = nullptr, *transposed_scale = nullptr;
  DelayedScale delayed;

  __device__ __forceinline__ float scale() const { return *delayed.scale > 0 ? *delayed.scale : 1.0f; }
  // By one thread of the grid.
  __device__ __forceinline__ void store_scales() const {
    if (codes != nullptr) *codes_scale = scale();
    if (transposed != nullptr) *transposed_scale = scale();
  }
};

// Host: whether a producer can write these itself (one format, scale known, whole vectors), else quantize does it after
// it. Fails the op if they do not fit the tensor or have no delayed scale.
inline bool produced_fp8(const char* op, const Quantized& out, const Quantized& transposed, const DelayedScale& delayed,
                         bool calibrate, int64_t N, int64_t columns, ProducedFp8* to) {
  ASSAY_OP_CHECK(op, delayed.scale != nullptr && delayed.amax != nullptr, "FP8 outputs need a delayed scale");
  bool same = !out || !transposed || out.codes.dtype == transposed.codes.dtype;
  for (const Quantized* q : {&out, &transposed}) {
    if (!*q) continue;
    check_quantized(op, "FP8 output", *q, 1, q == &out ? N : columns, q == &out ? columns : N);
    ASSAY_OP_CHECK(op, q->mode == ScaleMode::tensorwise, "FP8 outputs are tensorwise");
    ASSAY_OP_CHECK(op, reinterpret_cast<uintptr_t>(q->codes.data) % 16 == 0, "an FP8 output begins at an odd address");
  }
  *to = {out.codes.as<uint8_t>(), transposed.codes.as<uint8_t>(), out.scales.as<float>(), transposed.scales.as<float>(),
         delayed};
  return same && !calibrate;
}

// E4M3 codes [columns, N] of normed rows, with their static scale.
struct TransposedNorm {
  uint8_t* codes = nullptr;
  float* scale_to = nullptr;  // receives `scale`
  float scale = 1;

  // By one thread of the grid.
  __device__ __forceinline__ void store_scale() const {
    if (codes != nullptr) *scale_to = scale;
  }
};
// Host: whether a kernel can write n8t itself, else quantize does it. Fails the op if it does not fit n.
inline bool transposed_norm(const char* op, const Quantized& n8t, int64_t N, int64_t columns, TransposedNorm* to) {
  if (!n8t) return true;
  check_quantized(op, "n8t", n8t, 1, columns, N);
  ASSAY_OP_CHECK(op, n8t.mode == ScaleMode::tensorwise, "n8t is tensorwise");
  *to = {n8t.codes.as<uint8_t>(), n8t.scales.as<float>(), normed_scale(n8t.codes.dtype, columns)};
  return n8t.codes.dtype == DType::fp8_e4m3 && reinterpret_cast<uintptr_t>(n8t.codes.data) % 16 == 0;
}

// [a b c d], rows of four codes each, transposed in place.
__device__ __forceinline__ void transpose4x4(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
  const uint32_t ab_low = __byte_perm(a, b, 0x5140), cd_low = __byte_perm(c, d, 0x5140);
  const uint32_t ab_high = __byte_perm(a, b, 0x7362), cd_high = __byte_perm(c, d, 0x7362);
  a = __byte_perm(ab_low, cd_low, 0x5410);
  b = __byte_perm(ab_low, cd_low, 0x7632);
  c = __byte_perm(ab_high, cd_high, 0x5410);
  d = __byte_perm(ab_high, cd_high, 0x7632);
}

// Codes of `rows` rows in shared memory, row by row; sixteen rows are a part. Between the parts lie as many words that
// lanes which read one column of all parts meet different banks.
template <int rows_>
struct CodeTile {
  static constexpr int rows = rows_, parts = rows / 16, pad = 32 / parts;
  static_assert(rows % 16 == 0 && 32 % parts == 0 && pad % 2 == 0);
  static __host__ __device__ constexpr int words(int columns) { return rows * columns / 4 + parts * pad; }

  // Eight codes of a row; column is a multiple of 8.
  static __device__ __forceinline__ void put(uint32_t* tile, int columns, int row, int column, uint2 codes) {
    *reinterpret_cast<uint2*>(tile + row * (columns / 4) + row / 16 * pad + column / 4) = codes;
  }
  // to [columns, N]: the columns' codes of the rows from `first` on, as far as they exist. By the whole block, after a
  // barrier.
  static __device__ __forceinline__ void write(const uint32_t* tile, int columns, uint8_t* to, int64_t N,
                                               int64_t first) {
    for (int unit = threadIdx.x; unit < columns / 4 * parts; unit += blockDim.x) {
      const int part = unit % parts, column = unit / parts * 4;
      const int64_t row = first + part * 16;
      if (row >= N) continue;
      uint32_t run[16];  // of column c: words c, c + 4, c + 8, c + 12
#pragma unroll
      for (int i = 0; i < 16; ++i) run[i] = tile[(part * 16 + i) * (columns / 4) + part * pad + column / 4];
#pragma unroll
      for (int i = 0; i < 16; i += 4) transpose4x4(run[i], run[i + 1], run[i + 2], run[i + 3]);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        uint8_t* at = to + (column + c) * N + row;
        if (N % 16 == 0) {
          *reinterpret_cast<uint4*>(at) = make_uint4(run[c], run[c + 4], run[c + 8], run[c + 12]);
          continue;
        }
#pragma unroll
        for (int i = 0; i < 16; ++i)
          if (row + i < N) at[i] = static_cast<uint8_t>(run[i / 4 * 4 + c] >> i % 4 * 8);
      }
    }
  }
};

}  // namespace assay::cuda
