// Software BF16 and FP8 with the rounding of the hardware: round to nearest, ties to even.
// FP8 formats: OCP "OFP8" (E4M3: bias 7, max 448, no infinity, S.1111.111 is NaN; E5M2: bias 15, max 57344, IEEE-like).
// Casts to FP8 saturate finite values and infinities to the largest finite value (cvt.rn.satfinite); NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace assay {

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t float_to_bf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);  // NaN stays NaN, made quiet
  return static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

inline float round_bf16(float x) { return bf16_to_float(float_to_bf16(x)); }

inline constexpr float e4m3_max = 448.0f;
inline constexpr float e5m2_max = 57344.0f;

uint8_t float_to_e4m3(float x);
uint8_t float_to_e5m2(float x);
float e4m3_to_float(uint8_t code);
float e5m2_to_float(uint8_t code);

}  // namespace assay
