// What the memory-bound kernels share: element types, 8-element vectors, dispatch on the dtype, warp sums.
// A kernel is templated on the storage type S (float, __nv_bfloat16) and computes in float.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "engine/ops/cpu/element.h"
#include "engine/ops/cuda/check.h"
#include "engine/ops/tensor.h"

namespace assay::cuda {

using cpu::check_quantized;
using cpu::check_tensor;
using bf16 = __nv_bfloat16;

constexpr int vec = 8;  // elements per thread and access: 16 bytes of bf16, 2 x 16 of f32

__device__ __forceinline__ float to_float(float x) {
  return x;
}
__device__ __forceinline__ float to_float(bf16 x) {
  return __bfloat162float(x);
}
template <class S>
__device__ __forceinline__ S rounded(float x) {
  if constexpr (sizeof(S) == 2) return __float2bfloat16_rn(x);
  return x;
}
// x after one rounding to S.
template <class S>
__device__ __forceinline__ float round_to(float x) {
  if constexpr (sizeof(S) == 2) return __bfloat162float(__float2bfloat16_rn(x));
  return x;
}

// Eight elements as they lie in memory.
template <class S>
struct Packed {
  uint4 words[sizeof(S) / 2];

  __device__ __forceinline__ float get(int i) const {  // i must be known at compile time
    if constexpr (sizeof(S) == 2) {
      const uint32_t pair = (&words[0].x)[i / 2];
      return __uint_as_float(i % 2 == 0 ? pair << 16 : pair & 0xFFFF0000u);
    } else {
      return __uint_as_float((&words[i / 4].x)[i % 4]);
    }
  }
};

template <class S>
__device__ __forceinline__ Packed<S> load(const S* p) {
  Packed<S> v;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(S) / 2); ++i) v.words[i] = reinterpret_cast<const uint4*>(p)[i];
  return v;
}
template <class S>
__device__ __forceinline__ Packed<S> zero() {
  Packed<S> v;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(S) / 2); ++i) v.words[i] = make_uint4(0, 0, 0, 0);
  return v;
}
template <class S>
__device__ __forceinline__ Packed<S> load_or_zero(const S* p, bool valid) {
  return valid ? load(p) : zero<S>();
}
template <class S>
__device__ __forceinline__ void unpack(const Packed<S>& v, float (&x)[vec]) {
#pragma unroll
  for (int i = 0; i < vec; ++i) x[i] = v.get(i);
}
template <class S>
__device__ __forceinline__ Packed<S> pack(const float (&x)[vec]) {
  Packed<S> v;
  if constexpr (sizeof(S) == 2) {
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      w[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
    v.words[0] = make_uint4(w[0], w[1], w[2], w[3]);
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      v.words[i] = make_uint4(__float_as_uint(x[4 * i]), __float_as_uint(x[4 * i + 1]), __float_as_uint(x[4 * i + 2]),
                              __float_as_uint(x[4 * i + 3]));
  }
  return v;
}
template <class S>
__device__ __forceinline__ void store(S* p, const Packed<S>& v) {
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(S) / 2); ++i) reinterpret_cast<uint4*>(p)[i] = v.words[i];
}
template <class S>
__device__ __forceinline__ void store(S* p, const float (&x)[vec]) {
  store(p, pack<S>(x));
}

// --- FP8 -----------------------------------------------------------------------------------------------------------

struct E4m3 {
  static constexpr float max = 448.0f;
  static constexpr __nv_fp8_interpretation_t kind = __NV_E4M3;
};
struct E5m2 {
  static constexpr float max = 57344.0f;
  static constexpr __nv_fp8_interpretation_t kind = __NV_E5M2;
};

// Saturating codes of eight values times `inverse`.
template <class F>
__device__ __forceinline__ uint2 encode(const float (&x)[vec], float inverse) {
  uint32_t w[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t low =
        __nv_cvt_float2_to_fp8x2(make_float2(x[4 * i] * inverse, x[4 * i + 1] * inverse), __NV_SATFINITE, F::kind);
    const uint32_t high =
        __nv_cvt_float2_to_fp8x2(make_float2(x[4 * i + 2] * inverse, x[4 * i + 3] * inverse), __NV_SATFINITE, F::kind);
    w[i] = low | high << 16;
  }
  return make_uint2(w[0], w[1]);
}

// Magnitudes compare as their bits do, and a NaN above every number: it reaches the scale.
__device__ __forceinline__ int magnitude(float x) {
  return __float_as_int(x) & 0x7FFFFFFF;
}
__device__ __forceinline__ int amax_of(const float (&x)[vec], int amax) {
#pragma unroll
  for (int i = 0; i < vec; ++i) amax = max(amax, magnitude(x[i]));
  return amax;
}
// See QuantizeArgs: the scale of a group with this amax.
__device__ __forceinline__ float scale_of(float amax, float format_max) {
  const float scale = amax / format_max;
  return scale > 0 && isfinite(1.0f / scale) ? scale : (isnan(scale) ? scale : 1.0f);
}

// --- sums within a warp or a part of it (width a power of two): every lane gets the sum, in a fixed order ----------

template <int width = 32>
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = width / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}
template <int width = 32>
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int offset = width / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}
template <int width = 32>
__device__ __forceinline__ int warp_max(int x) {
#pragma unroll
  for (int offset = width / 2; offset > 0; offset /= 2) x = max(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
  return x;
}

// --- host ----------------------------------------------------------------------------------------------------------

// Calls f(S{}) for the storage type of `dtype`; fails the op for anything but bf16 and f32.
template <class F>
void dispatch(const char* op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::bf16:
      return f(bf16{});
    case DType::f32:
      return f(float{});
    default:
      fail_op(op, __FILE__, __LINE__, std::string("cannot work on ") + to_string(dtype) + " on CUDA");
  }
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Rows are read in 16-byte vectors, so they must begin at such addresses.
static_assert(cuda_limits[RunSize::width].multiple == vec && cuda_limits[RunSize::expert_width].multiple == vec &&
              cuda_limits[RunSize::vocab].multiple == vec);
inline void check_vectors(const char* op, const char* name, const Tensor& t, int64_t columns) {
  ASSAY_OP_CHECK(op, columns % vec == 0 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0,
                 std::string(name) + " is " + t.describe() + (columns % vec == 0 ? " at an odd address" : "") +
                     "; on CUDA rows are whole 16-byte vectors, multiples of 8 columns");
}

}  // namespace assay::cuda
