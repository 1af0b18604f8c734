// What the GPU backend asks of the routed buffer: aligned starts, and rows that are scaled while they move.
#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using namespace test;

TEST(RoutePlan, AlignsEveryExpertsRowsAndLeavesPaddingBetween) {
  // Expert 0 takes tokens 0, 1, 2; expert 1 none; expert 2 token 3.
  Array picks(DType::i32, {4, 1}), counts(DType::i32, {3}), weights(DType::f32, {4, 1});
  picks.set(3, 2);
  counts.set(0, 3), counts.set(2, 1);
  for (int64_t i = 0; i < 4; ++i) weights.set(i, 0.25 * static_cast<double>(i + 1));
  const int64_t R = 4 + 3 * 7;
  Array start(DType::i32, {3}), rows(DType::i32, {3}), slot(DType::i32, {4, 1}), token_of(DType::i32, {R}),
      gate_of(DType::f32, {R});
  RoutePlanArgs args{picks, counts, weights, 0, start, rows, slot, token_of, gate_of, 8};
  cpu::route_plan(args);
  EXPECT_EQ(start.get(0), 0);
  EXPECT_EQ(start.get(1), 8);
  EXPECT_EQ(start.get(2), 8);
  EXPECT_EQ(rows.get(0), 3);
  EXPECT_EQ(rows.get(1), 0);
  EXPECT_EQ(slot.get(3), 8);
  for (int64_t r = 0; r < R; ++r) {
    EXPECT_EQ(token_of.get(r), r < 3 ? static_cast<double>(r) : r == 8 ? 3 : -1) << "row " << r;
    EXPECT_EQ(gate_of.get(r), r < 3 ? 0.25 * static_cast<double>(r + 1) : r == 8 ? 1 : 0) << "row " << r;
  }
  args.token_of = token_of.t().slice(0, R - 1), args.gate_of = gate_of.t().slice(0, R - 1);
  EXPECT_NE(error_of([&] { cpu::route_plan(args); }).find("token_of has 24 rows, needs 25"), std::string::npos);
}

TEST(RoutePlan, AlignsStaticCapacities) {
  Array picks(DType::i32, {2, 1}), counts(DType::i32, {2}), weights(DType::f32, {2, 1});
  counts.set(0, 2);
  Array start(DType::i32, {2}), rows(DType::i32, {2}), slot(DType::i32, {2, 1}), token_of(DType::i32, {16}),
      gate_of(DType::f32, {16});
  cpu::route_plan({picks, counts, weights, 5, start, rows, slot, token_of, gate_of, 8});
  EXPECT_EQ(start.get(1), 8);
  EXPECT_EQ(rows.get(1), 5);
}

TEST(Permute, ScalesRowsByTheirGateAndLeavesPaddingZero) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Random random(80);
    const Array x = random_array(random, dtype, {2, 5});
    Array token_of(DType::i32, {3}), gate(DType::f32, {3}), out(dtype, {3, 5}), want(dtype, {3, 5});
    token_of.set(0, 1), token_of.set(1, -1), token_of.set(2, 0);
    gate.set(0, 0.3), gate.set(1, -2), gate.set(2, -0.7);
    cpu::permute({.token_of = token_of, .x = x, .out = out, .gate = gate});
    for (int64_t j = 0; j < 5; ++j) {
      want.set(j, static_cast<float>(gate.get(0)) * static_cast<float>(x.get(5 + j)));
      want.set(10 + j, static_cast<float>(gate.get(2)) * static_cast<float>(x.get(j)));
      EXPECT_FALSE(std::signbit(out.get(5 + j)));
    }
    EXPECT_TRUE(out.same_bytes(want)) << to_string(dtype);
  }
}

TEST(Permute, WritesCodesOfGatedRowsAndTheirTranspose) {
  Random random(81);
  const int64_t N = 4, R = 7, d = 5;
  Array token_of(DType::i32, {R}), gate = random_array(random, DType::f32, {R}), scale(DType::f32, {1});
  for (int64_t r = 0; r < R; ++r) token_of.set(r, static_cast<double>((r * 3) % 5) - 1);
  scale.set(0, 0.013);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Array x = random_array(random, dtype, {N, d});
    for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
      for (const bool gated : {false, true}) {
        Fp8Array out = fp8_array(format, ScaleMode::tensorwise, R, d),
                 out_t = fp8_array(format, ScaleMode::tensorwise, d, R);
        Array want(format, {R, d}), want_t(format, {d, R});
        for (int64_t i = 0; i < R * d; ++i) {
          const int64_t token = static_cast<int64_t>(token_of.get(i / d));
          const float factor = gated ? static_cast<float>(gate.get(i / d)) : 1.0f;
          const float value = token < 0 ? 0 : factor * static_cast<float>(x.get(token * d + i % d));
          want.set(i, value * (1.0f / static_cast<float>(scale.get(0))));
          want_t.set(i % d * R + i / d, want.get(i));
        }
        PermuteArgs a{.token_of = token_of, .x = x, .out8 = out, .out8t = out_t, .scale = scale};
        if (gated) a.gate = gate;
        cpu::permute(a);
        EXPECT_TRUE(out.codes.same_bytes(want)) << to_string(format) << " gated " << gated;
        EXPECT_TRUE(out_t.codes.same_bytes(want_t)) << to_string(format) << " gated " << gated;
        EXPECT_EQ(out.scales.get(0), scale.get(0));
        EXPECT_EQ(out_t.scales.get(0), scale.get(0));
        Fp8Array only_t = fp8_array(format, ScaleMode::tensorwise, d, R);
        a.out8 = {}, a.out8t = only_t;
        cpu::permute(a);
        EXPECT_TRUE(only_t.codes.same_bytes(want_t));
      }
    }
  }
}

TEST(Permute, RefusesMixedForms) {
  Array token_of(DType::i32, {2}), x(DType::f32, {2, 4}), out(DType::f32, {2, 4}), scale(DType::f32, {1});
  const Fp8Array codes = fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 2, 4),
                 rowwise = fp8_array(DType::fp8_e4m3, ScaleMode::rowwise, 2, 4);
  const auto refusal = [](const PermuteArgs& a) { return error_of([&] { cpu::permute(a); }); };
  const PermuteArgs both{.token_of = token_of, .x = x, .out = out, .out8 = codes, .scale = scale};
  EXPECT_NE(refusal(both).find("x goes to out, or to out8 and out8t"), std::string::npos);
  const PermuteArgs no_scale{.token_of = token_of, .x = x, .out8 = codes};
  EXPECT_NE(refusal(no_scale).find("scale is empty, expected f32[1]"), std::string::npos);
  const PermuteArgs by_row{.token_of = token_of, .x = x, .out8 = rowwise, .scale = scale};
  EXPECT_NE(refusal(by_row).find("codes of x are tensorwise, not rowwise"), std::string::npos);
  const PermuteArgs gated_codes{.token_of = token_of, .x8 = codes, .out8 = codes, .gate = scale};
  EXPECT_NE(refusal(gated_codes).find("codes are moved as they are"), std::string::npos);
}

}  // namespace
}  // namespace assay
