// Causal sliding-window attention against a naive softmax in double.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

struct Attention {
  int64_t B, T, H, D, window;
  Array qkv, out, lse;
  Attention(DType dtype, Random& random, int64_t B, int64_t T, int64_t H, int64_t D, int64_t window)
      : B(B),
        T(T),
        H(H),
        D(D),
        window(window),
        qkv(test::random_bf16_values(random, {B * T, 3, H, D}).as(dtype)),
        out(dtype, {B * T, H, D}),
        lse(dtype == DType::f64 ? DType::f64 : DType::f32, {B, H, T}) {}
  void run() { cpu::attention({qkv, out, lse, B, T, window}); }
  Array gradient(const Array& dout) const {
    Array dqkv = qkv;  // must be overwritten whole
    dqkv.fill(99);
    cpu::attention_grad({qkv, out, lse, dout, dqkv, B, T, window});
    return dqkv;
  }
  double at(int64_t b, int64_t t, int64_t part, int64_t h, int64_t j) const {
    return qkv.get((((b * T + t) * 3 + part) * H + h) * D + j);
  }
  std::string describe() const {
    return "qkv " + qkv.t().describe() + " T " + std::to_string(T) + " window " + std::to_string(window);
  }
};

void naive(const Attention& a, Array& out, Array& lse) {
  for (int64_t i = 0; i < a.B * a.H * a.T; ++i) {
    const int64_t b = i / (a.H * a.T), h = i / a.T % a.H, t = i % a.T, first = std::max<int64_t>(0, t - a.window + 1);
    std::vector<double> p;
    double sum = 0;
    for (int64_t s = first; s <= t; ++s) {
      double score = 0;
      for (int64_t j = 0; j < a.D; ++j) score += a.at(b, t, 0, h, j) * a.at(b, s, 1, h, j);
      p.push_back(std::exp(score / std::sqrt(static_cast<double>(a.D))));
      sum += p.back();
    }
    lse.set(i, std::log(sum));
    for (int64_t j = 0; j < a.D; ++j) {
      double value = 0;
      for (int64_t s = first; s <= t; ++s) value += p[static_cast<size_t>(s - first)] / sum * a.at(b, s, 2, h, j);
      out.set(((b * a.T + t) * a.H + h) * a.D + j, value);
    }
  }
}

// Lengths around the query block of 64, windows from one key to more than the sequence.
struct Shape {
  int64_t B, T, H, D, window;
};
const Shape shapes[] = {{1, 1, 1, 4, 1},      {2, 5, 3, 8, 5},    {1, 63, 2, 6, 63},  {1, 64, 1, 16, 1},
                        {2, 65, 1, 8, 7},     {1, 130, 2, 8, 64}, {1, 130, 1, 8, 65}, {1, 200, 1, 4, 150},
                        {1, 129, 1, 8, 1000}, {1, 70, 2, 8, 2}};

TEST(Attention, MatchesANaiveSoftmax) {
  Random random(50);
  for (const Shape& s : shapes) {
    Attention a(DType::f64, random, s.B, s.T, s.H, s.D, s.window);
    a.run();
    Array out = a.out, lse = a.lse;
    naive(a, out, lse);
    test::expect_near(a.describe(), a.out, out, 1e-11, 1e-12);
    test::expect_near(a.describe() + " lse", a.lse, lse, 1e-11, 1e-12);
  }
}

TEST(Attention, WindowOfOneCopiesTheValues) {
  Random random(51);
  Attention a(DType::bf16, random, 2, 70, 2, 8, 1);
  a.run();
  for (int64_t i = 0; i < a.out.size(); ++i) {
    ASSERT_EQ(a.out.get(i), a.qkv.get(i / 16 * 48 + 32 + i % 16)) << "element " << i;
  }
}

TEST(Attention, LowerPrecisionRoundsOnce) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Random r1(52), r2(52);
    Attention low(dtype, r1, 2, 100, 2, 32, 40), exact(DType::f64, r2, 2, 100, 2, 32, 40);
    low.run();
    exact.run();
    test::expect_rounded(low.describe(), low.out, exact.out, 1, 2e-6);
    test::expect_near(low.describe() + " lse", low.lse, exact.lse, 1e-6, 2e-6);
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  Random random(53);
  Attention a(DType::f32, random, 1, 80, 1, 16, 80);
  for (int64_t i = 0; i < a.qkv.size(); ++i) a.qkv.set(i, 40 * a.qkv.get(i));
  a.run();
  const Array dqkv = a.gradient(a.out);
  for (int64_t i = 0; i < a.out.size(); ++i) ASSERT_TRUE(std::isfinite(a.out.get(i))) << i;
  for (int64_t i = 0; i < dqkv.size(); ++i) ASSERT_TRUE(std::isfinite(dqkv.get(i))) << i;
}

TEST(AttentionGrad, MatchesCentralDifferences) {
  Random random(54);
  for (const Shape& s : shapes) {
    Attention a(DType::f64, random, s.B, s.T, s.H, s.D, s.window);
    const Array c = random_array(random, DType::f64, {s.B * s.T, s.H, s.D});
    const auto loss = [&] {
      a.run();
      return dot(a.out, c);
    };
    loss();
    const Array gradient = a.gradient(c);
    check_gradient(a.describe(), loss, a.qkv, gradient, 1e-6, 40);
  }
}

TEST(AttentionGrad, LowerPrecisionFollowsDouble) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Array got, want;
    for (Array* to : {&got, &want}) {
      Random random(55);
      Attention a(to == &got ? dtype : DType::f64, random, 1, 90, 2, 16, 33);
      const Array dout = test::random_bf16_values(random, {90, 2, 16}).as(a.qkv.dtype());
      a.run();
      *to = a.gradient(dout);
    }
    // delta = <dout, out> carries the rounding of the stored out.
    const double u = dtype == DType::bf16 ? 0x1p-8 : 2e-6;
    test::expect_near("dqkv", got, want, u, 3 * u * test::rms(want));
  }
}

TEST(AttentionGrad, IsTheSameBitForBitWhenRepeated) {
  Random random(56);
  Attention a(DType::bf16, random, 2, 150, 3, 16, 70);
  a.run();
  const Array first = a.gradient(a.out), second = a.gradient(a.out);
  EXPECT_TRUE(first.same_bytes(second));
}

}  // namespace
}  // namespace assay
