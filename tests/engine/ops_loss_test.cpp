// softcap + cross entropy, and the small reductions.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

// Loss per row and dloss/dlogits * grad_scale, straight from the definition.
void naive(const Array& logits, const Array& targets, double cap, double grad_scale, Array& loss, Array& grad) {
  const int64_t C = targets.size(), V = logits.size() / C;
  for (int64_t r = 0; r < C; ++r) {
    const int64_t target = static_cast<int64_t>(targets.get(r));
    double sum = 0;
    for (int64_t j = 0; j < V; ++j) sum += std::exp(cap * std::tanh(logits.get(r * V + j) / cap));
    for (int64_t j = 0; j < V; ++j) {
      const double t = std::tanh(logits.get(r * V + j) / cap), p = std::exp(cap * t) / sum;
      grad.set(r * V + j, (p - (j == target ? 1 : 0)) * (1 - t * t) * grad_scale);
    }
    loss.set(r, std::log(sum) - cap * std::tanh(logits.get(r * V + target) / cap));
  }
}

TEST(SoftcapXent, MatchesTheDefinitionInEveryPrecision) {
  Random random(90);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const DType stat = dtype == DType::f64 ? DType::f64 : DType::f32;
    for (double scale : {0.1, 3.0, 40.0}) {
      const int64_t C = random.integer(1, 12), V = random.integer(1, 300);
      Array logits = random_array(random, dtype, {C, V}, scale), loss(stat, {C});
      const Array targets = random_integers(random, {C}, 0, V - 1), kept = logits;
      Array want_loss(DType::f64, {C}), want(DType::f64, {C, V});
      naive(logits, targets, 15, 0.25, want_loss, want);
      const std::string what = logits.t().describe() + " scale " + std::to_string(scale);
      cpu::softcap_xent({logits, targets, loss, 15, 0.25, true});
      EXPECT_TRUE(logits.same_bytes(kept)) << what << ": forward_only writes nothing";
      const double fp32 = dtype == DType::f64 ? 1e-6 : 1.0;
      test::expect_near(what + " loss", loss, want_loss, 1e-6 * fp32, 5e-6 * fp32);
      cpu::softcap_xent({logits, targets, loss, 15, 0.25, false});
      test::expect_near(what + " loss", loss, want_loss, 1e-6 * fp32, 5e-6 * fp32);
      // Where tanh saturates, 1 - tanh^2 keeps few digits: relative to the largest gradient, 0.25.
      test::expect_near(what + " gradient", logits, want, dtype == DType::bf16 ? 0x1.01p-8 : 1e-5 * fp32, 2e-7 * fp32);
    }
  }
}

TEST(SoftcapXent, GradientMatchesCentralDifferences) {
  Random random(91);
  const int64_t C = 4, V = 13;
  Array logits = random_array(random, DType::f64, {C, V}, 8), loss(DType::f64, {C});
  const Array targets = random_integers(random, {C}, 0, V - 1);
  const auto total = [&] {
    cpu::softcap_xent({logits, targets, loss, 15, 1, true});
    double sum = 0;
    for (int64_t r = 0; r < C; ++r) sum += loss.get(r);
    return sum / 7;
  };
  Array gradient = logits;
  cpu::softcap_xent({gradient, targets, loss, 15, 1.0 / 7, false});
  check_gradient("logits", total, logits, gradient, 1e-6, C * V);
}

// The scale puts the bound of the gradient, grad_scale, on the format's largest number.
TEST(SoftcapXent, CodesOfTheGradientInBothOrientations) {
  Random random(93);
  for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
    const double largest = format == DType::fp8_e4m3 ? 448 : 57344;
    const int64_t C = 5, V = 37;
    Array logits = random_array(random, DType::bf16, {C, V}, 3), plain = logits, loss(DType::f32, {C});
    const Array targets = random_integers(random, {C}, 0, V - 1);
    test::Fp8Array codes = test::fp8_array(format, ScaleMode::tensorwise, C, V),
                   codes_t = test::fp8_array(format, ScaleMode::tensorwise, V, C);
    const double grad_scale = 1.0 / 640;
    cpu::softcap_xent({plain, targets, loss, 15, grad_scale, false});
    cpu::softcap_xent({.logits = logits,
                       .targets = targets,
                       .loss = loss,
                       .grad_scale = grad_scale,
                       .grad8 = codes,
                       .grad8t = codes_t});
    EXPECT_FLOAT_EQ(static_cast<float>(codes.scales.get(0)), static_cast<float>(grad_scale / largest));
    EXPECT_EQ(codes_t.scales.get(0), codes.scales.get(0));
    const Array got = test::dequantize(codes, C, V);
    test::expect_near("gradient", got, plain, format == DType::fp8_e4m3 ? 0x1p-4 : 0x1p-3, grad_scale / largest);
    for (int64_t i = 0; i < C * V; ++i) EXPECT_EQ(codes_t.codes.get(i % V * C + i / V), codes.codes.get(i)) << i;
  }
}

TEST(SoftcapXent, ZeroLogitsCostTheLogOfTheVocabulary) {
  Array logits(DType::bf16, {3, 32768}), targets(DType::i32, {3}), loss(DType::f32, {3});
  cpu::softcap_xent({logits, targets, loss, 15, 1, true});
  for (int64_t r = 0; r < 3; ++r) EXPECT_NEAR(loss.get(r), 10.397208, 2e-6);
}

TEST(SoftcapXent, ANanLogitMakesTheLossNan) {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Array logits(dtype, {1, 20}), targets(DType::i32, {1}), loss(dtype == DType::f64 ? dtype : DType::f32, {1});
    logits.set(3, std::nan(""));
    cpu::softcap_xent({logits, targets, loss});
    EXPECT_TRUE(std::isnan(loss.get(0))) << to_string(dtype);
  }
}

TEST(Reduce, SumsMatchALoopAndAddToTheResult) {
  Random random(92);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (int64_t n : {int64_t{1}, int64_t{7}, int64_t{4096}, int64_t{4097}, int64_t{100003}}) {
      const Array x = random_array(random, dtype, {n});
      double squares = 0, sum = 0, got_squares = 5, got_sum = 5;
      for (int64_t i = 0; i < n; ++i) squares += x.get(i) * x.get(i), sum += x.get(i);
      cpu::sum_squares({{x}, &got_squares});
      cpu::sum({x, &got_sum});
      EXPECT_NEAR(got_squares - 5, squares, 1e-12 * squares + 1e-14) << x.t().describe();
      EXPECT_NEAR(got_sum - 5, sum, 1e-12 * squares + 1e-14) << x.t().describe();
      double again = 5;
      cpu::sum_squares({{x}, &again});
      EXPECT_EQ(again, got_squares) << "order of summation must not depend on timing";
    }
  }
}

TEST(Reduce, SumOfSquaresShowsNonFiniteValues) {
  for (double bad : {std::nan(""), HUGE_VAL}) {
    Array x(DType::bf16, {9000});
    x.set(8999, bad);
    double sum = 0;
    cpu::sum_squares({{x}, &sum});
    EXPECT_FALSE(std::isfinite(sum));
  }
}

TEST(Reduce, AddAndCastRoundToTheTarget) {
  Random random(93);
  for (DType from : {DType::f32, DType::bf16}) {
    for (DType to : {DType::f32, DType::bf16}) {
      const Array x = random_array(random, from, {5, 33}), y0 = random_array(random, to, {5, 33});
      Array y = y0, dst(to, {165});
      cpu::add({x, y});
      cpu::cast({x, dst});
      for (int64_t i = 0; i < x.size(); ++i) {
        Array one(to, {1});
        one.set(0, static_cast<float>(x.get(i)) + static_cast<float>(y0.get(i)));
        EXPECT_EQ(y.get(i), one.get(0)) << to_string(from) << " + " << to_string(to);
        one.set(0, x.get(i));
        EXPECT_EQ(dst.get(i), one.get(0)) << to_string(from) << " -> " << to_string(to);
      }
    }
  }
  const Array x = random_array(random, DType::f64, {6});
  Array y = x, f32(DType::f32, {6}), bf16(DType::bf16, {6});
  cpu::add({x, y});
  cpu::cast({x, f32});
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(y.get(i), 2 * x.get(i));
    EXPECT_EQ(f32.get(i), static_cast<float>(x.get(i)));
  }
  EXPECT_NE(test::error_of([&] { cpu::cast({x, bf16}); }).find("f64[6] cannot be cast to bf16[6]"), std::string::npos);
  EXPECT_NE(test::error_of([&] { cpu::add({x, f32}); }).find("f64[6] cannot be added to f32[6]"), std::string::npos);
}

TEST(Reduce, FillZeroClearsEveryByte) {
  Random random(94);
  Array x = random_array(random, DType::bf16, {3, 5});
  cpu::fill_zero({x});
  for (int64_t i = 0; i < 15; ++i) EXPECT_EQ(x.get(i), 0);
}

}  // namespace
}  // namespace assay
