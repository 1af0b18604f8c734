// AdamW against a scalar reference, Muon against a naive one in double, and what each is meant to achieve.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

TEST(AdamW, FollowsAScalarReferenceOverSteps) {
  Random random(100);
  for (DType dtype : {DType::f64, DType::f32}) {
    const int64_t n = 37;
    Array param = random_array(random, dtype, {n}), m(dtype, {n}), v(dtype, {n});
    const Array start = param;
    std::vector<Array> grads;
    for (int step = 1; step <= 6; ++step) {
      grads.push_back(random_array(random, dtype, {n}, std::pow(10.0, step - 3)));
      AdamWArgs a{param, grads.back(), m, v, 0.02, 0.8, 0.95, 1e-10, 0.1, step};
      cpu::adamw(a);
    }
    for (int64_t i = 0; i < n; ++i) {
      double p = start.get(i), m1 = 0, v1 = 0;
      for (int step = 1; step <= 6; ++step) {
        const double g = grads[static_cast<size_t>(step - 1)].get(i);
        p *= 1 - 0.02 * 0.1;
        m1 = 0.8 * m1 + 0.2 * g;
        v1 = 0.95 * v1 + 0.05 * g * g;
        p -= 0.02 * (m1 / (1 - std::pow(0.8, step))) / (std::sqrt(v1 / (1 - std::pow(0.95, step))) + 1e-10);
      }
      EXPECT_NEAR(param.get(i), p, dtype == DType::f64 ? 1e-13 : 2e-6)
          << to_string(dtype) << " element " << i << " seed " << test::seed();
    }
  }
}

TEST(AdamW, RefusesStepZero) {
  Array p(DType::f32, {2});
  EXPECT_NE(test::error_of([&] {
              cpu::adamw({p, p, p, p, 0.1, 0.9, 0.9, 1e-8, 0, 0});
            }).find("at step 0"),
            std::string::npos);
}

using Matrix = std::vector<std::vector<double>>;

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(b[0].size(), 0));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t k = 0; k < b.size(); ++k) {
      for (size_t j = 0; j < b[0].size(); ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  return c;
}
Matrix transposed(const Matrix& a) {
  Matrix t(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  }
  return t;
}
double norm(const Matrix& a) {
  double sum = 0;
  for (const auto& row : a) {
    for (double x : row) sum += x * x;
  }
  return std::sqrt(sum);
}
void scale(Matrix& a, double s) {
  for (auto& row : a) {
    for (double& x : row) x *= s;
  }
}
// alpha * a + beta * b
Matrix blend(double alpha, const Matrix& a, double beta, const Matrix& b) {
  Matrix c = a;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[0].size(); ++j) c[i][j] = alpha * a[i][j] + beta * b[i][j];
  }
  return c;
}

constexpr double coefficients[5][3] = {{8.156554524902461, -22.48329292557795, 15.878769915207462},
                                       {4.042929935166739, -2.808917465908714, 0.5000178451051316},
                                       {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
                                       {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
                                       {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};

void round_all(Matrix& a, bool bf16) {
  for (auto& row : a) {
    for (double& x : row) x = bf16 ? round_bf16(static_cast<float>(x)) : x;
  }
}

// The orthogonal factor before any snapping. With bf16: one rounding at each store.
Matrix polar(Matrix x, bool bf16 = false) {
  const bool tall = x.size() > x[0].size();
  round_all(x, bf16);
  const double target = norm(x) / std::sqrt(static_cast<double>(x.size()));
  for (auto& row : x) {
    const double factor = target / std::max(norm({row}), 1e-6);
    for (double& value : row) value *= factor;
  }
  round_all(x, bf16);
  scale(x, 1 / (norm(x) * 1.01 + 1e-6));
  round_all(x, bf16);
  for (const auto& [a, b, c] : coefficients) {
    Matrix gram = tall ? product(transposed(x), x) : product(x, transposed(x));
    round_all(gram, bf16);
    Matrix poly = blend(b, gram, c, product(gram, gram));
    round_all(poly, bf16);
    x = blend(a, x, 1, tall ? product(x, poly) : product(poly, x));
    round_all(x, bf16);
  }
  return x;
}

struct MuonState {
  int64_t K, R, C;
  Array param, grad, momentum, second;
  MuonState(DType dtype, Random& random, int64_t K, int64_t R, int64_t C)
      : K(K),
        R(R),
        C(C),
        param(random_array(random, DType::f32, {K, R, C}).as(dtype)),
        grad(random_array(random, DType::f32, {K, R, C}).as(dtype)),
        momentum(random_array(random, DType::f32, {K, R, C}).as(dtype)),
        second(dtype, {K, std::max(R, C)}) {
    for (int64_t i = 0; i < second.size(); ++i) second.set(i, static_cast<float>(random.uniform(0.001, 0.01)));
  }
  MuonArgs args() const { return {{{param, grad, momentum, second}}, {0.02, 0.9, 0.85, 0.3}, true}; }
  Matrix matrix(const Array& a, int64_t k) const {
    Matrix m(static_cast<size_t>(R), std::vector<double>(static_cast<size_t>(C)));
    for (int64_t i = 0; i < R * C; ++i)
      m[static_cast<size_t>(i / C)][static_cast<size_t>(i % C)] = a.get(k * R * C + i);
    return m;
  }
  std::string describe() const { return param.t().describe(); }
};

// One matrix of the stack, from the definition. Writes the expected param, momentum and second moment.
void naive_muon(const MuonState& s, int64_t k, Array& param, Array& momentum, Array& second) {
  const MuonRates a = s.args().rates;
  const Matrix p = s.matrix(s.param, k);
  Matrix g = s.matrix(s.grad, k);
  const Matrix m = blend(a.momentum_beta, s.matrix(s.momentum, k), 1 - a.momentum_beta, g);
  g = polar(blend(1 - a.momentum_beta, g, a.momentum_beta, m));
  scale(g, std::sqrt(static_cast<double>(std::min(s.R, s.C))) / norm(g));
  const bool per_row = s.R >= s.C;
  const Matrix lines = per_row ? g : transposed(g);
  const double size = static_cast<double>(lines[0].size());
  double old_squares = 0, new_squares = 0;
  std::vector<double> step;
  for (size_t i = 0; i < lines.size(); ++i) {
    double mean = 0;
    for (double x : lines[i]) mean += x * x / size;
    const int64_t at = k * static_cast<int64_t>(lines.size()) + static_cast<int64_t>(i);
    const double moment = a.beta2 * s.second.get(at) + (1 - a.beta2) * mean;
    second.set(at, moment);
    step.push_back(1 / std::sqrt(std::max(moment, 1e-10)));
    old_squares += mean * size;
    new_squares += mean * size * step.back() * step.back();
  }
  const double keep = std::sqrt(old_squares) / std::max(std::sqrt(new_squares), 1e-10);
  const double lr = a.lr * std::sqrt(std::max(1.0, static_cast<double>(s.R) / static_cast<double>(s.C)));
  for (int64_t i = 0; i < s.R * s.C; ++i) {
    const size_t r = static_cast<size_t>(i / s.C), c = static_cast<size_t>(i % s.C);
    const double update = g[r][c] * step[per_row ? r : c] * keep;
    const double decay = update * p[r][c] >= 0 ? a.weight_decay * p[r][c] : 0;
    param.set(k * s.R * s.C + i, p[r][c] - lr * (update + decay));
    momentum.set(k * s.R * s.C + i, m[r][c]);
  }
}

TEST(Muon, FullPrecisionMatchesANaiveReference) {
  Random random(101);
  const int64_t shapes[][3] = {{1, 8, 8}, {3, 24, 10}, {2, 10, 24}, {2, 1, 6}, {2, 6, 1}};
  for (const auto& shape : shapes) {
    for (DType dtype : {DType::f64, DType::f32}) {
      MuonState s(dtype, random, shape[0], shape[1], shape[2]);
      Array param = s.param.as(DType::f64), momentum = param, second = s.second.as(DType::f64);
      for (int64_t k = 0; k < s.K; ++k) naive_muon(s, k, param, momentum, second);
      cpu::muon(s.args());
      const double tolerance = dtype == DType::f64 ? 1e-9 : 2e-4;
      test::expect_near(s.describe() + " momentum", s.momentum, momentum, 0, tolerance * test::rms(momentum));
      test::expect_near(s.describe() + " second moment", s.second, second, 0, tolerance * test::rms(second));
      // The step is about lr: the comparison must see it, not the weights.
      test::expect_near(s.describe() + " param", s.param, param, 1e-7 * (dtype == DType::f32), tolerance * 0.02);
    }
  }
}

// With a uniform second moment, no decay and lr 1 the update is the orthogonal factor, up to the norm that it is
// snapped to: param_before - param_after.
TEST(Muon, UpdateIsNearlyOrthogonalInBf16) {
  Random random(102);
  const int64_t shapes[][2] = {{48, 48}, {96, 40}, {40, 96}};
  for (const auto& [R, C] : shapes) {
    MuonState s(DType::f32, random, 2, R, C);
    s.param.fill(0), s.momentum.fill(0), s.second.fill(1);
    MuonArgs a = s.args();
    a.rates.lr = 1 / std::sqrt(std::max(1.0, static_cast<double>(R) / static_cast<double>(C)));
    a.rates.beta2 = 1, a.rates.weight_decay = 0, a.full_precision = false;
    cpu::muon(a);
    for (int64_t k = 0; k < 2; ++k) {
      const Matrix x = s.matrix(s.param, k);
      EXPECT_NEAR(norm(x), std::sqrt(static_cast<double>(std::min(R, C))), 1e-2) << s.describe();
      const Matrix gram = R >= C ? product(transposed(x), x) : product(x, transposed(x));
      double diagonal = 0, off = 0;
      for (size_t i = 0; i < gram.size(); ++i) {
        // Rayleigh quotients of unit vectors lie between the extreme squared singular values.
        EXPECT_GT(gram[i][i], 0.6 * 0.6) << s.describe();
        EXPECT_LT(gram[i][i], 1.4 * 1.4) << s.describe();
        diagonal += gram[i][i] * gram[i][i];
        for (size_t j = 0; j < gram.size(); ++j) off += i == j ? 0 : gram[i][j] * gram[i][j];
      }
      EXPECT_LT(off / diagonal, 0.15) << s.describe() << ": a random matrix has about "
                                      << static_cast<double>(std::min(R, C)) / static_cast<double>(std::max(R, C));
    }
  }
}

TEST(Muon, Bf16ProductsStayCloseToFullPrecisionAndDiffer) {
  Random r1(103), r2(103);
  MuonState low(DType::f32, r1, 2, 40, 64), exact(DType::f32, r2, 2, 40, 64);
  Array before = low.param;
  MuonArgs a = low.args();
  a.full_precision = false;
  cpu::muon(a);
  cpu::muon(exact.args());
  EXPECT_FALSE(low.param.same_bytes(exact.param));
  double difference = 0, size = 0;
  for (int64_t i = 0; i < before.size(); ++i) {
    difference += std::pow(low.param.get(i) - exact.param.get(i), 2);
    size += std::pow(before.get(i) - exact.param.get(i), 2);
  }
  EXPECT_LT(std::sqrt(difference / size), 0.1);
}

// A sum in FP32 instead of double moves a value across a rounding boundary now and then, and that matrix then differs
// by a BF16 step; a rounding left out or added moves every matrix.
TEST(Muon, Bf16RoundsOnceAtEachStore) {
  Random random(106);
  const int64_t shapes[][2] = {{6, 6}, {9, 5}, {5, 9}};
  for (const auto& [R, C] : shapes) {
    const int64_t K = 12;
    MuonState s(DType::f32, random, K, R, C);
    s.param.fill(0), s.momentum.fill(0), s.second.fill(1);
    MuonArgs a = s.args();
    a.rates.lr = 1 / std::sqrt(std::max(1.0, static_cast<double>(R) / static_cast<double>(C)));
    a.rates.momentum_beta = 0, a.rates.beta2 = 1, a.rates.weight_decay = 0, a.full_precision = false;
    std::vector<Matrix> gradients;
    for (int64_t k = 0; k < K; ++k) gradients.push_back(s.matrix(s.grad, k));
    cpu::muon(a);
    int equal = 0;
    for (int64_t k = 0; k < K; ++k) {
      Matrix want = polar(gradients[static_cast<size_t>(k)], true);
      scale(want, std::sqrt(static_cast<double>(std::min(R, C))) / norm(want));
      const double difference = norm(blend(1, want, 1, s.matrix(s.param, k)));  // param = -update
      equal += difference < 1e-5;
      EXPECT_LT(difference, 0.1) << s.describe() << " matrix " << k << " seed " << test::seed();
    }
    EXPECT_GE(equal, 8) << s.describe() << " seed " << test::seed();
  }
}

TEST(Muon, EachMatrixOfAStackIsUpdatedOnItsOwn) {
  Random random(104);
  MuonState stack(DType::f32, random, 3, 12, 20);
  const MuonState kept = stack;
  cpu::muon(stack.args());
  for (int64_t k = 0; k < 3; ++k) {
    MuonState one = kept;
    MuonArgs a = one.args();
    MuonStack& only = a.stacks[0];
    for (Tensor* t : {&only.param, &only.grad, &only.momentum, &only.second_moment}) *t = t->slice(k, 1);
    cpu::muon(a);
    for (int64_t i = 0; i < 240; ++i)
      ASSERT_NEAR(one.param.get(k * 240 + i), stack.param.get(k * 240 + i), 1e-6) << "matrix " << k;
  }
}

TEST(Muon, AStackOfAListIsUpdatedAsOnItsOwn) {
  Random random(107);
  MuonState first(DType::f32, random, 2, 12, 20), second(DType::f32, random, 1, 12, 20);
  MuonState first_alone = first, second_alone = second;
  MuonArgs both = first.args();
  both.stacks.push_back(second.args().stacks[0]);
  cpu::muon(both);
  cpu::muon(first_alone.args());
  cpu::muon(second_alone.args());
  EXPECT_TRUE(first.param.same_bytes(first_alone.param) && first.momentum.same_bytes(first_alone.momentum));
  EXPECT_TRUE(second.param.same_bytes(second_alone.param) && second.second.same_bytes(second_alone.second));
}

TEST(Muon, RefusesStacksOfTwoShapes) {
  Random random(108);
  MuonState wide(DType::f32, random, 1, 4, 6), tall(DType::f32, random, 1, 6, 4);
  MuonArgs a = wide.args();
  a.stacks.push_back(tall.args().stacks[0]);
  EXPECT_NE(test::error_of([&] { cpu::muon(a); }).find("f32[1, 6, 4] beside f32[1, 4, 6]"), std::string::npos);
}

TEST(Muon, AZeroGradientLeavesTheWeightsToDecayOnly) {
  Random random(105);
  MuonState s(DType::f32, random, 1, 6, 9);
  s.grad.fill(0), s.momentum.fill(0);
  const Array before = s.param;
  cpu::muon(s.args());
  for (int64_t i = 0; i < 54; ++i) EXPECT_NEAR(s.param.get(i), before.get(i) * (1 - 0.02 * 0.3), 1e-6);
}

}  // namespace
}  // namespace assay
