// FP8 quantisation: every scale mode, both orientations, delayed and static scales.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Fp8Array;
using test::Random;

const ScaleMode modes[] = {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128, ScaleMode::block_128x128};

float format_max(DType format) {
  return format == DType::fp8_e4m3 ? 448.0f : 57344.0f;
}

Array transposed(const Array& x, int64_t R, int64_t K) {
  Array t(x.dtype(), {K, R});
  for (int64_t i = 0; i < R * K; ++i) t.set(i % K * R + i / K, x.get(i));
  return t;
}

// Codes and scales of one matrix from the definition; fixed > 0 replaces every scale.
Fp8Array naive(const Array& x, DType format, ScaleMode mode, int64_t R, int64_t K, float fixed = 0) {
  Fp8Array out = test::fp8_array(format, mode, R, K);
  std::vector<float> amax(static_cast<size_t>(out.scales.size()), 0.0f);
  for (int64_t i = 0; i < R * K; ++i) {
    float& group = amax[static_cast<size_t>(test::scale_index(mode, i / K, i % K, K))];
    group = std::max(group, std::fabs(static_cast<float>(x.get(i))));
  }
  for (size_t g = 0; g < amax.size(); ++g) {
    out.scales.set(static_cast<int64_t>(g), fixed > 0 ? fixed : amax[g] > 0 ? amax[g] / format_max(format) : 1.0f);
  }
  for (int64_t i = 0; i < R * K; ++i) {
    const float inverse = 1.0f / static_cast<float>(out.scales.get(test::scale_index(mode, i / K, i % K, K)));
    out.codes.set(i, static_cast<float>(x.get(i)) * inverse);
  }
  return out;
}

void expect_same(const std::string& what, const Fp8Array& got, const Fp8Array& want) {
  EXPECT_TRUE(got.scales.same_bytes(want.scales))
      << what << " scales " << got.scales.t().describe() << " seed " << test::seed();
  EXPECT_TRUE(got.codes.same_bytes(want.codes))
      << what << " codes " << got.codes.t().describe() << " seed " << test::seed();
}

TEST(Quantize, EveryModeMatchesTheDefinitionInBothOrientations) {
  Random random(110);
  const int64_t shapes[][2] = {{1, 1}, {3, 128}, {128, 129}, {130, 300}, {257, 40}};
  for (DType x_dtype : {DType::f32, DType::bf16}) {
    for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
      for (ScaleMode mode : modes) {
        for (const auto& [R, K] : shapes) {
          const Array x = random_array(random, x_dtype, {R, K}, std::exp2(random.uniform(-12, 12)));
          Fp8Array out = test::fp8_array(format, mode, R, K), turned = test::fp8_array(format, mode, K, R);
          cpu::quantize({x, out, turned});
          const std::string what = std::string(to_string(mode)) + " of " + x.t().describe();
          expect_same(what, out, naive(x, format, mode, R, K));
          expect_same(what + " transposed", turned, naive(transposed(x, R, K), format, mode, K, R));
        }
      }
    }
  }
}

TEST(Quantize, RelativeErrorIsThatOfTheFormat) {
  Random random(111);
  const Array x = random_array(random, DType::f32, {20, 256});
  for (ScaleMode mode : modes) {
    Fp8Array out = test::fp8_array(DType::fp8_e4m3, mode, 20, 256);
    cpu::quantize({x, out});
    // 3 mantissa bits: half a unit is 2^-4 of the value; subnormal steps of about amax * 2^-9 / 448 below.
    test::expect_near(to_string(mode), dequantize(out, 20, 256), x, 0x1.01p-4, 4.5 * 0x1p-9 / 448);
  }
}

TEST(Quantize, TransposedAloneAndInAnotherModeAndFormat) {
  Random random(112);
  const Array x = random_array(random, DType::bf16, {140, 70});
  Fp8Array out = test::fp8_array(DType::fp8_e4m3, ScaleMode::block_128x128, 140, 70),
           turned = test::fp8_array(DType::fp8_e5m2, ScaleMode::rowwise, 70, 140);
  cpu::quantize({x, out, turned});
  const Fp8Array both = turned;
  expect_same("rowwise e5m2", turned, naive(transposed(x, 140, 70), DType::fp8_e5m2, ScaleMode::rowwise, 70, 140));
  turned.codes.fill(0);
  cpu::quantize({x, {}, turned});
  expect_same("transposed alone", turned, both);
}

TEST(Quantize, AGroupOfZerosGetsScaleOne) {
  for (ScaleMode mode : modes) {
    Array x(DType::f32, {256, 256});
    x.set(200 * 256 + 200, 896);  // the last block is not empty
    Fp8Array out = test::fp8_array(DType::fp8_e4m3, mode, 256, 256);
    cpu::quantize({x, out});
    const int64_t used = test::scale_index(mode, 200, 200, 256);
    for (int64_t i = 0; i < out.scales.size(); ++i)
      EXPECT_EQ(out.scales.get(i), i == used ? 2 : 1) << to_string(mode) << " " << i;
    EXPECT_EQ(out.codes.get(200 * 256 + 200), 448);
    EXPECT_EQ(out.codes.get(0), 0);
  }
}

TEST(Quantize, ValuesTooSmallForAScaleBecomeZeros) {
  Array x(DType::f32, {1, 4});
  x.fill(1e-40);
  Fp8Array out = test::fp8_array(DType::fp8_e4m3, ScaleMode::rowwise, 1, 4);
  cpu::quantize({x, out});
  EXPECT_EQ(out.scales.get(0), 1);
  EXPECT_EQ(out.codes.get(0), 0);
}

TEST(Quantize, NonFiniteValuesStayVisible) {
  for (ScaleMode mode : modes) {
    for (double bad : {std::nan(""), HUGE_VAL}) {
      Array x(DType::bf16, {3, 130});
      x.fill(1);
      x.set(5, bad);
      Fp8Array out = test::fp8_array(DType::fp8_e4m3, mode, 3, 130);
      cpu::quantize({x, out});
      EXPECT_TRUE(std::isnan(dequantize(out, 3, 130).get(5))) << to_string(mode) << " " << bad;
    }
  }
}

TEST(Quantize, AStackIsQuantisedMatrixByMatrix) {
  Random random(113);
  for (ScaleMode mode : modes) {
    const int64_t G = 3, R = 130, K = 140;
    const Array x = random_array(random, DType::bf16, {G, R, K});
    Fp8Array out = test::fp8_stack(DType::fp8_e4m3, mode, G, R, K),
             turned = test::fp8_stack(DType::fp8_e4m3, mode, G, K, R);
    cpu::quantize({x, out, turned});
    for (int64_t g = 0; g < G; ++g) {
      Fp8Array one = test::fp8_array(DType::fp8_e4m3, mode, R, K),
               one_turned = test::fp8_array(DType::fp8_e4m3, mode, K, R);
      cpu::quantize({x.t().slice(g, 1).view({R, K}), one, one_turned});
      for (const auto& [stack, single] : {std::pair{&out, &one}, std::pair{&turned, &one_turned}}) {
        const int64_t codes = single->codes.size(), scales = single->scales.size();
        for (int64_t i = 0; i < codes; ++i)
          ASSERT_EQ(stack->codes.get(g * codes + i), single->codes.get(i)) << to_string(mode);
        for (int64_t i = 0; i < scales; ++i)
          ASSERT_EQ(stack->scales.get(g * scales + i), single->scales.get(i)) << to_string(mode);
      }
    }
  }
}

TEST(Quantize, StaticScaleIsUsedAsItIs) {
  Random random(114);
  const Array x = random_array(random, DType::f32, {9, 150});
  for (ScaleMode mode : modes) {
    Fp8Array out = test::fp8_array(DType::fp8_e4m3, mode, 9, 150),
             turned = test::fp8_array(DType::fp8_e4m3, mode, 150, 9);
    QuantizeArgs a{x, out, turned};
    a.static_scale = 0.002f;  // saturates beyond 0.896
    cpu::quantize(a);
    expect_same(to_string(mode), out, naive(x, DType::fp8_e4m3, mode, 9, 150, 0.002f));
    expect_same(to_string(mode), turned, naive(transposed(x, 9, 150), DType::fp8_e4m3, mode, 150, 9, 0.002f));
  }
}

struct Delayed {
  Array x;
  Fp8Array out, turned;
  float scale = 0, amax = 0;
  explicit Delayed(Random& random)
      : x(random_array(random, DType::bf16, {6, 40})),
        out(test::fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 6, 40)),
        turned(test::fp8_array(DType::fp8_e5m2, ScaleMode::tensorwise, 40, 6)) {}
  void run() {
    QuantizeArgs a{x, out, turned};
    a.delayed = {&scale, &amax};
    cpu::quantize(a);
  }
  float own_amax() const {
    double top = 0;
    for (int64_t i = 0; i < x.size(); ++i) top = std::max(top, std::fabs(x.get(i)));
    return static_cast<float>(top);
  }
};

TEST(DelayedScale, UncalibratedUsesItsOwnAmaxAndRecordsIt) {
  Random random(115);
  Delayed d(random);
  d.run();
  expect_same("own amax", d.out, naive(d.x, DType::fp8_e4m3, ScaleMode::tensorwise, 6, 40));
  expect_same("own amax, e5m2", d.turned, naive(transposed(d.x, 6, 40), DType::fp8_e5m2, ScaleMode::tensorwise, 40, 6));
  EXPECT_EQ(d.amax, d.own_amax());
  EXPECT_EQ(d.scale, 0) << "scale_update calibrates, not quantize";
}

TEST(DelayedScale, UncalibratedCountsAsOneUnlessCalibrating) {
  Random random(117);
  Delayed d(random);
  QuantizeArgs a{d.x, d.out, d.turned};
  a.delayed = {&d.scale, &d.amax};
  a.calibrate = false;
  cpu::quantize(a);
  expect_same("scale 1", d.out, naive(d.x, DType::fp8_e4m3, ScaleMode::tensorwise, 6, 40, 1));
  EXPECT_EQ(d.amax, d.own_amax());
}

TEST(DelayedScale, CalibratedSaturatesAndOnlyRaisesTheAmax) {
  Random random(116);
  Delayed d(random);
  d.scale = 0.001f;  // saturates beyond 0.448
  d.amax = 0.5f;
  d.run();
  EXPECT_EQ(d.out.scales.get(0), 0.001f);
  EXPECT_EQ(d.scale, 0.001f);
  EXPECT_EQ(d.amax, d.own_amax());
  expect_same("given scale", d.out, naive(d.x, DType::fp8_e4m3, ScaleMode::tensorwise, 6, 40, 0.001f));
  double largest = 0;
  for (int64_t i = 0; i < d.x.size(); ++i) largest = std::max(largest, d.out.codes.get(i));
  EXPECT_EQ(largest, 448);
  d.amax = 1000;
  d.run();
  EXPECT_EQ(d.amax, 1000) << "amax is raised, never lowered";
}

TEST(DelayedScale, IsForOneTensorwiseMatrix) {
  Array x(DType::f32, {2, 3, 4});
  Fp8Array out = test::fp8_stack(DType::fp8_e4m3, ScaleMode::tensorwise, 2, 3, 4);
  float scale = 1, amax = 0;
  QuantizeArgs a{x, out};
  a.delayed = {&scale, &amax};
  EXPECT_NE(test::error_of([&] { cpu::quantize(a); }).find("a delayed scale is for one tensorwise matrix"),
            std::string::npos);
}

TEST(ScaleUpdate, TakesTheAmaxWithMarginAndClearsIt) {
  float scale[] = {7, 7, 0}, amax[] = {448, 0, 57344};
  const float max[] = {448, 448, 57344};
  cpu::scale_update({scale, amax, max, 3, 1.5f});
  EXPECT_EQ(scale[0], 1.5f);
  EXPECT_EQ(scale[1], 7.0f) << "no use in this step: keep the scale";
  EXPECT_EQ(scale[2], 1.5f);
  for (float a : amax) EXPECT_EQ(a, 0.0f);
}

TEST(Quantize, RefusesDoubles) {
  Array x(DType::f64, {2, 2});
  Fp8Array out = test::fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 2, 2);
  EXPECT_NE(test::error_of([&] {
              cpu::quantize({x, out});
            }).find("x is f64[2, 2], expected f32 or bf16"),
            std::string::npos);
}

TEST(PrepareWeights, EveryWeightBecomesWhatItsOpAloneMakesOfIt) {
  Random random(118);
  const int64_t G = 3, R = 130, K = 40;
  const Array stack = random_array(random, DType::f32, {G, R, K}), matrix = random_array(random, DType::f32, {R, K});
  const auto forms = [&](ScaleMode mode) {
    return std::array{test::fp8_stack(DType::fp8_e4m3, mode, G, R, K), test::fp8_stack(DType::fp8_e4m3, mode, G, K, R)};
  };
  for (ScaleMode mode : modes) {
    auto got = forms(mode), want = forms(mode);
    Array copy(DType::bf16, {R, K}), want_copy(DType::bf16, {R, K});
    PrepareWeightsArgs args;
    args.weights.push_back({.x = stack, .out = got[0], .transposed = got[1], .copy = {}});
    args.weights.push_back({.x = matrix, .out = {}, .transposed = {}, .copy = copy});
    cpu::prepare_weights(args);
    cpu::quantize({.x = stack, .out = want[0], .transposed = want[1]});
    cpu::cast({matrix, want_copy});
    expect_same(to_string(mode), got[0], want[0]);
    expect_same(std::string(to_string(mode)) + " transposed", got[1], want[1]);
    EXPECT_TRUE(copy.same_bytes(want_copy)) << "copy, seed " << test::seed();
  }
}

TEST(PrepareWeights, AWeightWithoutAnyFormIsRefused) {
  const Array x(DType::f32, {2, 8});
  PrepareWeightsArgs args;
  args.weights.push_back({.x = x, .out = {}, .transposed = {}, .copy = {}});
  EXPECT_NE(test::error_of([&] { cpu::prepare_weights(args); }).find("neither out nor transposed is set"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
