// Software BF16 and FP8 against the definition of the formats.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops_support.h"

namespace assay {
namespace {

struct Format {
  const char* name;
  int mantissa_bits, bias;
  float max;
  int finite_codes;  // positive codes 0 .. finite_codes - 1 are finite
  uint8_t (*encode)(float);
  float (*decode)(uint8_t);
};
const Format formats[] = {
    {"e4m3", 3, 7, 448.0f, 0x7F, float_to_e4m3, e4m3_to_float},
    {"e5m2", 2, 15, 57344.0f, 0x7C, float_to_e5m2, e5m2_to_float},
};

double defined_value(const Format& f, int code) {
  const int mantissa = code & ((1 << f.mantissa_bits) - 1), exponent = (code & 0x7F) >> f.mantissa_bits;
  const double fraction = mantissa / static_cast<double>(1 << f.mantissa_bits);
  const double value = exponent == 0 ? std::ldexp(fraction, 1 - f.bias) : std::ldexp(1 + fraction, exponent - f.bias);
  return (code & 0x80) != 0 ? -value : value;
}

// Nearest finite code of |x| by search; a tie goes to the even code.
int nearest_code(const Format& f, double x) {
  int best = 0;
  for (int code = 1; code < f.finite_codes; ++code) {
    const double closer = std::fabs(defined_value(f, code) - x) - std::fabs(defined_value(f, best) - x);
    if (closer < 0 || (closer == 0 && code % 2 == 0)) best = code;
  }
  return best;
}

TEST(Fp8, EveryCodeHasItsDefinedValueAndRoundTrips) {
  for (const Format& f : formats) {
    for (int code = 0; code < 256; ++code) {
      const float value = f.decode(static_cast<uint8_t>(code));
      if ((code & 0x7F) < f.finite_codes) {
        EXPECT_EQ(value, defined_value(f, code)) << f.name << " code " << code;
        EXPECT_EQ(std::signbit(value), code >= 128) << f.name << " code " << code;
        EXPECT_EQ(f.encode(value), code) << f.name;
      } else if (std::isnan(value)) {
        EXPECT_EQ(f.encode(value), 0x7F) << f.name << " code " << code;
      } else {
        EXPECT_EQ(f.encode(value), (code & 0x80) | (f.finite_codes - 1))
            << f.name << ": infinity saturates, code " << code;
      }
    }
  }
}

TEST(Fp8, OnlyTheDefinedCodesAreNanOrInfinite) {
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(std::isnan(e4m3_to_float(static_cast<uint8_t>(code))), (code & 0x7F) == 0x7F) << code;
    EXPECT_FALSE(std::isinf(e4m3_to_float(static_cast<uint8_t>(code)))) << code;
    EXPECT_EQ(std::isinf(e5m2_to_float(static_cast<uint8_t>(code))), (code & 0x7F) == 0x7C) << code;
    EXPECT_EQ(std::isnan(e5m2_to_float(static_cast<uint8_t>(code))), (code & 0x7F) > 0x7C) << code;
  }
}

TEST(Fp8, MidpointsGoToTheEvenCodeAndTheirNeighboursToTheNearest) {
  for (const Format& f : formats) {
    for (int code = 0; code + 1 < f.finite_codes; ++code) {
      const double low = defined_value(f, code), high = defined_value(f, code + 1);
      const float middle = static_cast<float>((low + high) / 2);
      ASSERT_EQ(static_cast<double>(middle), (low + high) / 2);
      EXPECT_EQ(f.encode(middle), code % 2 == 0 ? code : code + 1) << f.name << " " << middle;
      EXPECT_EQ(f.encode(-middle), 0x80 | (code % 2 == 0 ? code : code + 1)) << f.name << " " << -middle;
      EXPECT_EQ(f.encode(std::nextafter(middle, 0.0f)), code) << f.name << " below " << middle;
      EXPECT_EQ(f.encode(std::nextafter(middle, 1e9f)), code + 1) << f.name << " above " << middle;
    }
  }
}

TEST(Fp8, RandomValuesGoToTheNearestCode) {
  test::Random random(1);
  for (const Format& f : formats) {
    for (int i = 0; i < 5000; ++i) {
      const float x = static_cast<float>(std::exp2(random.uniform(-20, 17)));
      EXPECT_EQ(f.encode(x), nearest_code(f, x)) << f.name << " " << x << " seed " << test::seed();
    }
  }
}

TEST(Fp8, SaturatesAndKeepsNan) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Format& f : formats) {
    for (float x : {f.max, f.max * 1.01f, f.max * 1.1f, f.max * 100, std::numeric_limits<float>::max(), infinity}) {
      EXPECT_EQ(f.decode(f.encode(x)), f.max) << f.name << " " << x;
      EXPECT_EQ(f.decode(f.encode(-x)), -f.max) << f.name << " " << -x;
    }
    EXPECT_TRUE(std::isnan(f.decode(f.encode(nan)))) << f.name;
    EXPECT_TRUE(std::isnan(f.decode(f.encode(-nan)))) << f.name;
    EXPECT_EQ(f.encode(0.0f), 0x00);
    EXPECT_EQ(f.encode(-0.0f), 0x80);
    EXPECT_EQ(f.encode(std::numeric_limits<float>::denorm_min()), 0x00);
  }
}

TEST(Bf16, EveryCodeRoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bf16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(round_bf16(value))) << bits;
    } else {
      EXPECT_EQ(float_to_bf16(value), bits);
    }
  }
}

TEST(Bf16, TiesGoToEvenAndLargeValuesToInfinity) {
  EXPECT_EQ(round_bf16(1.0f + 0x1p-8f), 1.0f);                // tie, low neighbour even
  EXPECT_EQ(round_bf16(1.0f + 3 * 0x1p-8f), 1.0f + 0x1p-6f);  // tie, high neighbour even
  EXPECT_EQ(round_bf16(std::nextafter(1.0f + 0x1p-8f, 2.0f)), 1.0f + 0x1p-7f);
  EXPECT_EQ(round_bf16(std::nextafter(1.0f + 3 * 0x1p-8f, 0.0f)), 1.0f + 0x1p-7f);
  EXPECT_EQ(round_bf16(-1.0f - 0x1p-8f), -1.0f);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(round_bf16(infinity), infinity);
  EXPECT_EQ(round_bf16(-infinity), -infinity);
  EXPECT_EQ(round_bf16(std::numeric_limits<float>::max()), infinity);
  EXPECT_EQ(round_bf16(0x1p-133f), 0x1p-133f);  // smallest subnormal
  EXPECT_EQ(round_bf16(0x1p-134f), 0.0f);       // half of it: a tie, to zero
  // A NaN whose payload sits in the dropped bits must not become infinity.
  EXPECT_TRUE(std::isnan(round_bf16(std::bit_cast<float>(0x7F800001u))));
  EXPECT_TRUE(std::isnan(round_bf16(std::bit_cast<float>(0xFF80FFFFu))));
}

}  // namespace
}  // namespace assay
