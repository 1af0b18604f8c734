// What the twins that write FP8 share: magnitudes, the scale that follows from one, codes.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "engine/ops/quantize.h"

namespace assay::cpu {

// Magnitudes compare as their bits do, and a NaN above every number: it reaches the scale and what scale_update sees.
inline int32_t magnitude(float x) {
  return std::bit_cast<int32_t>(x) & 0x7FFFFFFF;
}

inline float amax_of(const float* x, int64_t stride, int64_t rows, int64_t cols) {
  int32_t top = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * stride;
#pragma omp simd reduction(max : top)
    for (int64_t c = 0; c < cols; ++c) top = std::max(top, magnitude(row[c]));
  }
  return std::bit_cast<float>(top);
}

inline float scale_of(float amax, float max) {
  const float scale = amax / max;
  return std::isfinite(1.0f / scale) || std::isnan(scale) ? scale : 1.0f;
}

// codes[i] = cast(x[i] * inverse)
inline void encode(const float* x, int64_t n, float inverse, DType format, uint8_t* codes) {
  if (format == DType::fp8_e4m3) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) codes[i] = float_to_e4m3(x[i] * inverse);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) codes[i] = float_to_e5m2(x[i] * inverse);
  }
}

}  // namespace assay::cpu
