// Software BF16 and FP8 with the rounding of the hardware: round to nearest, ties to even.
// FP8 formats: OCP "OFP8" (E4M3: bias 7, max 448, no infinity, S.1111.111 is NaN; E5M2: bias 15, max 57344, IEEE-like).
// Casts to FP8 saturate finite values and infinities to the largest finite value (cvt.rn.satfinite); NaN stays NaN.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace assay {

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t float_to_bf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);  // NaN stays NaN, made quiet
  return static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

inline float round_bf16(float x) {
  return bf16_to_float(float_to_bf16(x));
}

inline constexpr float e4m3_max = 448.0f;
inline constexpr float e5m2_max = 57344.0f;

namespace lowp_detail {

// Branch-free, so that loops over it vectorise. Both formats share the shape sign | exponent | mantissa.
template <int mantissa_bits, int bias>
inline uint8_t encode_fp8(float x, float max) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t raw = bits & 0x7FFFFFFFu;
  const float magnitude = std::bit_cast<float>(raw);
  const float m = magnitude < max ? magnitude : max;
  const uint32_t u = std::bit_cast<uint32_t>(m);
  // Normal codes: drop the low mantissa bits with ties to even, then move the exponent to the format's bias.
  constexpr int drop = 23 - mantissa_bits;
  const uint32_t normal = ((u + ((1u << (drop - 1)) - 1u) + ((u >> drop) & 1u)) >> drop) -
                          (static_cast<uint32_t>(127 - bias) << mantissa_bits);
  // Subnormal codes are multiples of one step: adding 2^23 steps leaves the rounded multiple in the low bits.
  constexpr float step_shift = static_cast<float>(1 << 23) / static_cast<float>(1 << (bias - 1 + mantissa_bits));
  const uint32_t subnormal = std::bit_cast<uint32_t>(m + step_shift) - std::bit_cast<uint32_t>(step_shift);
  constexpr float min_normal = 1.0f / static_cast<float>(1 << (bias - 1));
  const uint32_t finite = sign | (m < min_normal ? subnormal : normal);
  return static_cast<uint8_t>(raw > 0x7F800000u ? 0x7Fu : finite);
}

extern const std::array<float, 256> e4m3_values;
extern const std::array<float, 256> e5m2_values;

}  // namespace lowp_detail

// NaN becomes 0x7F in both formats.
inline uint8_t float_to_e4m3(float x) {
  return lowp_detail::encode_fp8<3, 7>(x, e4m3_max);
}
inline uint8_t float_to_e5m2(float x) {
  return lowp_detail::encode_fp8<2, 15>(x, e5m2_max);
}
inline float e4m3_to_float(uint8_t code) {
  return lowp_detail::e4m3_values[code];
}
inline float e5m2_to_float(uint8_t code) {
  return lowp_detail::e5m2_values[code];
}

}  // namespace assay
