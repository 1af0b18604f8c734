#include "engine/ops/lowp.h"

#include <cstddef>
#include <limits>

namespace assay::lowp_detail {
namespace {

constexpr float power_of_two(int exponent) {
  return std::bit_cast<float>(static_cast<uint32_t>(127 + exponent) << 23);
}

// The value of a code, from the definition of the format. E4M3 has NaN only where exponent and mantissa are all ones;
// E5M2 keeps the whole top exponent for infinity and NaN.
constexpr float decode(int code, int mantissa_bits, int bias, bool ieee_like) {
  const int exponent_bits = 7 - mantissa_bits;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const int exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const bool top = exponent == (1 << exponent_bits) - 1;
  const float sign = (code & 0x80) != 0 ? -1.0f : 1.0f;
  if (ieee_like && top) {
    return mantissa == 0 ? sign * std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  }
  if (!ieee_like && top && mantissa == (1 << mantissa_bits) - 1) return std::numeric_limits<float>::quiet_NaN();
  const float fraction = static_cast<float>(mantissa) / static_cast<float>(1 << mantissa_bits);
  if (exponent == 0) return sign * fraction * power_of_two(1 - bias);
  return sign * (1.0f + fraction) * power_of_two(exponent - bias);
}

constexpr std::array<float, 256> table(int mantissa_bits, int bias, bool ieee_like) {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) {
    values[static_cast<std::size_t>(code)] = decode(code, mantissa_bits, bias, ieee_like);
  }
  return values;
}

}  // namespace

constinit const std::array<float, 256> e4m3_values = table(3, 7, false);
constinit const std::array<float, 256> e5m2_values = table(2, 15, true);

}  // namespace assay::lowp_detail
