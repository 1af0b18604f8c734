// Dense products against a triple loop in double.
#include <gtest/gtest.h>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

// op(a) * op(b) with an optional addend, in double.
Array naive(const Array& a, const Array& b, bool ta, bool tb, int64_t M, int64_t N, int64_t K) {
  Array out(DType::f64, {M, N});
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += a.get(ta ? k * M + m : m * K + k) * b.get(tb ? n * K + k : k * N + n);
      out.set(m * N + n, sum);
    }
  }
  return out;
}

void add_to(Array& sum, const Array& extra) {
  for (int64_t i = 0; i < sum.size(); ++i) sum.set(i, sum.get(i) + extra.get(i));
}

struct Case {
  DType in, out;
};
const Case cases[] = {{DType::f64, DType::f64},
                      {DType::f32, DType::f32},
                      {DType::f32, DType::bf16},
                      {DType::bf16, DType::bf16},
                      {DType::bf16, DType::f32}};

TEST(Gemm, EveryTransposeDtypeAndAddendMatchesATripleLoop) {
  Random random(10);
  const auto ops = make_cpu_ops();
  for (const Case& c : cases) {
    for (int bits = 0; bits < 32; ++bits) {
      const bool ta = bits & 1, tb = bits & 2, accumulate = bits & 4, residual = bits & 8, in_place = bits & 16;
      const int64_t M = random.integer(1, 40), N = random.integer(1, 40), K = random.integer(1, 70);
      const Array a = random_array(random, c.in, {ta ? K : M, ta ? M : K}),
                  b = random_array(random, c.in, {tb ? N : K, tb ? K : N});
      Array out = random_array(random, c.out, {M, N});
      const Array extra = random_array(random, c.out, {M, N});
      Array want = naive(a, b, ta, tb, M, N, K);
      if (accumulate) add_to(want, out);
      if (residual) add_to(want, in_place ? out : extra);
      GemmArgs args{a, b, ta, tb, out};
      args.accumulate = accumulate;
      if (residual) args.residual = in_place ? out.t() : extra.t();
      ops->gemm(args);
      test::expect_rounded("gemm " + a.t().describe() + " * " + b.t().describe() + " flags " + std::to_string(bits),
                           out, want);
    }
  }
}

TEST(Gemm, IsTheSameBitForBitWhenRepeated) {
  Random random(11);
  const Array a = random_array(random, DType::bf16, {200, 300}), b = random_array(random, DType::bf16, {150, 300});
  Array first(DType::f32, {200, 150}), second(DType::f32, {200, 150});
  cpu::gemm({a, b, false, true, first});
  cpu::gemm({a, b, false, true, second});
  EXPECT_TRUE(first.same_bytes(second));
}

TEST(Gemm, RefusesMixedOperandsAndMixedPrecision) {
  Array a(DType::f32, {4, 3}), b(DType::bf16, {5, 3}), b64(DType::f64, {5, 3}), a64(DType::f64, {4, 3}),
      out(DType::f32, {4, 5});
  EXPECT_NE(test::error_of([&] {
              cpu::gemm({a, b, false, true, out});
            }).find("not two matrices of one dtype"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] {
              cpu::gemm({a64, b64, false, true, out});
            }).find("out is f32[4, 5] with operands in f64"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] {
              cpu::gemm({a, a, false, false, out});
            }).find("inner dimensions differ"),
            std::string::npos);
}

TEST(GemmFp8, EveryScaleModeMatchesDequantiseThenMultiply) {
  Random random(12);
  const ScaleMode left[] = {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128};
  const ScaleMode right[] = {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128,
                             ScaleMode::block_128x128};
  for (ScaleMode mode_a : left) {
    for (ScaleMode mode_b : right) {
      for (DType format_a : {DType::fp8_e4m3, DType::fp8_e5m2}) {
        for (int64_t K : {int64_t{128}, int64_t{384}, random.integer(1, 300)}) {
          const int64_t M = random.integer(1, 140), N = random.integer(1, 140);
          const test::Fp8Array a = random_fp8(random, format_a, mode_a, M, K),
                               b = random_fp8(random, DType::fp8_e4m3, mode_b, N, K);
          const Array want = naive(dequantize(a, M, K), dequantize(b, N, K), false, true, M, N, K);
          const std::string what = std::string(to_string(mode_a)) + " " + a.codes.t().describe() + " * " +
                                   to_string(mode_b) + " " + b.codes.t().describe();
          Array f32(DType::f32, {M, N}), bf16 = random_array(random, DType::bf16, {M, N}), sum = want;
          cpu::gemm_fp8({a, b, f32});
          test::expect_rounded(what, f32, want);
          add_to(sum, bf16);
          cpu::gemm_fp8({a, b, bf16, bf16});
          test::expect_rounded(what + " + residual", bf16, sum);
          add_to(sum = want, f32);
          cpu::gemm_fp8({a, b, f32, {}, true});
          test::expect_rounded(what + " accumulated", f32, sum, 2);
        }
      }
    }
  }
}

TEST(GemmFp8, RefusesScalesOfTheWrongShape) {
  Random random(13);
  test::Fp8Array a = random_fp8(random, DType::fp8_e4m3, ScaleMode::rowwise, 4, 128),
                 b = random_fp8(random, DType::fp8_e4m3, ScaleMode::rowwise, 5, 128);
  a.scales = Array(DType::f32, {1});
  Array out(DType::f32, {4, 5});
  EXPECT_NE(test::error_of([&] {
              cpu::gemm_fp8({a, b, out});
            }).find("a (rowwise, codes fp8_e4m3[4, 128]) has scales f32[1], expected 4"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
