// Rows of d elements, one row per warp or per block, each thread holding `chunks` vectors of it in registers.
#pragma once

#include <algorithm>
#include <utility>

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/tiling.h"
#include "engine/ops/norm.h"

namespace assay::cuda {

// threads per row and vectors per thread: rows of up to threads * chunks * 8 columns. Blocks have whole rows and up to
// 128 threads; how many rows changes no result.
template <int threads_, int chunks_>
struct RowLayout {
  static constexpr int threads = threads_;
  static constexpr int chunks = chunks_;
  static constexpr int rows_per_block = 128 / threads;  // of the kernels whose blocks are always of 128 threads
  static_assert(128 % threads == 0 && threads % 32 == 0);

  static __device__ __forceinline__ int lane() { return threadIdx.x % threads; }
  static __device__ __forceinline__ int64_t row() {
    return static_cast<int64_t>(blockIdx.x) * (blockDim.x / threads) + threadIdx.x / threads;
  }
  static __device__ __forceinline__ int column(int chunk) { return (chunk * threads + lane()) * vec; }
  // Sum (maximum) over the threads of the row; every one of them gets it. All threads of the block must call it.
  static __device__ __forceinline__ float sum(float x) {
    x = warp_sum(x);
    if constexpr (threads == 32) return x;
    __shared__ float parts[4];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    const int first = threadIdx.x / threads * (threads / 32);
    float total = parts[first];
#pragma unroll
    for (int i = 1; i < threads / 32; ++i) total += parts[first + i];
    return total;
  }
  static __device__ __forceinline__ int max(int x) {
    x = warp_max(x);
    if constexpr (threads == 32) return x;
    __shared__ int parts[4];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    const int first = threadIdx.x / threads * (threads / 32);
    int top = parts[first];
#pragma unroll
    for (int i = 1; i < threads / 32; ++i) top = ::max(top, parts[first + i]);
    return top;
  }
};

// Threads of a block with this many warps, or with the row that needs more.
template <class L>
constexpr int block_threads(int warps) {
  return std::max(warps * 32, L::threads);
}

// Calls f(RowLayout<...>{}) for rows of d columns: row_shape says which.
template <class F>
void dispatch_row(const char* op, const Tensor& t, int64_t d, bool by_width, F&& f) {
  const RowShape s = row_shape(d, by_width);
  if (s == RowShape{32, 1}) return f(RowLayout<32, 1>{});
  if (s == RowShape{32, 3}) return f(RowLayout<32, 3>{});
  if (s == RowShape{64, 3}) return f(RowLayout<64, 3>{});
  if (s == RowShape{128, 1}) return f(RowLayout<128, 1>{});
  if (s == RowShape{128, 4}) return f(RowLayout<128, 4>{});
  fail_op(op, __FILE__, __LINE__, t.describe() + ": " + refusal(cuda_limits, RunSize::width, d));
}
template <class F>
void dispatch_row(const char* op, const Tensor& t, int64_t d, F&& f) {
  dispatch_row(op, t, d, true, std::forward<F>(f));
}

// The FP8 copy of a normed row, as the producers write it.
struct NormedFp8 {
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  ScaleMode mode = ScaleMode::tensorwise;
  bool e5m2 = false;
  float static_scale = 0;  // tensorwise
};

// Host: the kernel's view of n8 (empty or [N, d]); see MixNormArgs::n8.
inline NormedFp8 normed_fp8(const char* op, const Quantized& n8, int64_t N, int64_t d) {
  if (!n8) return {};
  check_quantized(op, "n8", n8, 1, N, d);
  ASSAY_OP_CHECK(op, n8.mode != ScaleMode::block_128x128, "n8 cannot have 128x128 scales: they span rows");
  ASSAY_OP_CHECK(op, reinterpret_cast<uintptr_t>(n8.codes.data) % 8 == 0, "n8 begins at an odd address");
  return {n8.codes.as<uint8_t>(), n8.scales.as<float>(), n8.mode, n8.codes.dtype == DType::fp8_e5m2,
          normed_scale(n8.codes.dtype, d)};
}

template <class F, class L, class S>
__device__ __forceinline__ void store_fp8_row(const NormedFp8& q, const Packed<S> (&n)[L::chunks], int64_t row, int d,
                                              bool live) {
  float scale = q.static_scale;
  if (q.mode == ScaleMode::tensorwise && row == 0 && L::lane() == 0) *q.scales = scale;
  if (q.mode == ScaleMode::rowwise) {
    int amax = 0;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
      float x[vec];
      unpack(n[c], x);
      amax = amax_of(x, amax);
    }
    scale = scale_of(__int_as_float(L::max(amax)), F::max);
    if (live && L::lane() == 0) q.scales[row] = scale;
  }
  const int blocks = (d + 127) / 128;
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    const int column = L::column(c);
    float x[vec];
    unpack(n[c], x);
    if (q.mode == ScaleMode::block_1x128) {  // 16 neighbouring lanes hold one block of 128 columns
      scale = scale_of(__int_as_float(warp_max<16>(amax_of(x, 0))), F::max);
      if (live && column < d && L::lane() % 16 == 0) q.scales[row * blocks + column / 128] = scale;
    }
    if (live && column < d) *reinterpret_cast<uint2*>(q.codes + row * d + column) = encode<F>(x, 1.0f / scale);
  }
}

// n = x * rstd rounded to S, in place of x; returns rstd. `x` holds zeros beyond d and in rows that do not exist.
template <class L, class S>
__device__ __forceinline__ float norm_row(Packed<S> (&x)[L::chunks], int d) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < L::chunks; ++c)
#pragma unroll
    for (int i = 0; i < vec; ++i) sum += x[c].get(i) * x[c].get(i);
  const float rstd = 1.0f / sqrtf(L::sum(sum) / static_cast<float>(d) + static_cast<float>(rms_eps));
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    float v[vec];
    unpack(x[c], v);
#pragma unroll
    for (int i = 0; i < vec; ++i) v[i] *= rstd;
    x[c] = pack<S>(v);
  }
  return rstd;
}

}  // namespace assay::cuda
