// exp and tanh that vectorise on plain SSE2 (no libm call per element). Polynomials as in Cephes (S. Moshier,
// netlib.org/cephes, single precision): relative error about 2 ulp. double goes to libm.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace assay::cpu {

inline double exp_fast(double x) {
  return std::exp(x);
}
// Results below 2^-125 are flushed to 0; above the largest float, infinity. NaN stays NaN.
inline float exp_fast(float x) {
  constexpr float lowest = -87.33654f, highest = 88.72283f;
  const float c = x < lowest ? lowest : x > highest ? highest : x;
  // n = round(x / ln 2): adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits.
  constexpr float magic = 12582912.0f;
  const float shifted = c * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  // Two factors, since 2^128 has no float: near the top n is 128.
  const uint32_t power = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(magic);
  const float half_scale = std::bit_cast<float>((power + 126u) << 23);
  const float result = y * half_scale * 2.0f;
  return x > highest ? std::bit_cast<float>(0x7F800000) : x == x ? result : x;
}

inline double tanh_fast(double x) {
  return std::tanh(x);
}
inline float tanh_fast(float x) {
  const float magnitude = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu);
  const float z = x * x;
  float odd = -5.70498872745e-3f;
  odd = odd * z + 2.06390887954e-2f;
  odd = odd * z - 5.37397155531e-2f;
  odd = odd * z + 1.33314422036e-1f;
  odd = odd * z - 3.33332819422e-1f;
  odd = odd * z * x + x;
  const float saturating = 1.0f - 2.0f / (exp_fast(2.0f * magnitude) + 1.0f);
  const uint32_t sign = std::bit_cast<uint32_t>(x) & 0x80000000u;
  const float signed_saturating = std::bit_cast<float>(std::bit_cast<uint32_t>(saturating) | sign);
  return magnitude < 0.625f ? odd : signed_saturating;
}

// row[j] = exp(row[j] - shift); returns the sum, in eight lanes as row_dot.
template <class A>
inline A exp_minus(A* row, int64_t n, A shift) {
  A lanes[8] = {};
  const int64_t whole = n & ~int64_t{7};
  for (int64_t j = 0; j < whole; j += 8) {
#pragma omp simd
    for (int l = 0; l < 8; ++l) {
      row[j + l] = exp_fast(row[j + l] - shift);
      lanes[l] += row[j + l];
    }
  }
  A sum = 0;
  for (A lane : lanes) sum += lane;
  for (int64_t j = whole; j < n; ++j) {
    row[j] = exp_fast(row[j] - shift);
    sum += row[j];
  }
  return sum;
}

}  // namespace assay::cpu
