// QK-norm + RoPE, alone and behind the packed projection, and the gated value embedding.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

struct Rope {
  int64_t B, T, H, D, V, d;
  DType dtype, stat;
  Array cos, sin, qkv, rstd, tokens, ve, n, gate_w;
  Rope(DType dtype, Random& random, int64_t B, int64_t T, int64_t H, int64_t D, int64_t d)
      : B(B),
        T(T),
        H(H),
        D(D),
        V(7),
        d(d),
        dtype(dtype),
        stat(dtype == DType::f64 ? DType::f64 : DType::f32),
        cos(stat, {T, D / 2}),
        sin(stat, {T, D / 2}),
        qkv(test::random_bf16_values(random, {B * T, 3, H, D}).as(dtype)),
        rstd(stat, {B * T, 2, H}),
        tokens(random_integers(random, {B * T}, 0, V - 1)),
        ve(test::random_bf16_values(random, {V, H * D}).as(stat)),
        n(test::random_bf16_values(random, {B * T, d}).as(dtype)),
        gate_w(test::random_bf16_values(random, {H, 12}, 0.3).as(stat)) {
    rope_table(10000, cos, sin);
  }
  // The op on a copy of qkv.
  Array run(bool value_embedding) const {
    Array out = qkv;
    QkNormRopeArgs a;
    a.qkv = out, a.cos = cos, a.sin = sin, a.rstd = rstd, a.T = T;
    if (value_embedding) a.tokens = tokens, a.ve_table = ve, a.n = n, a.gate_w = gate_w;
    cpu::qk_norm_rope(a);
    return out;
  }
  std::string describe() const {
    return "qkv " + qkv.t().describe() + " T " + std::to_string(T) + " d " + std::to_string(d);
  }
};

Array naive(const Rope& r, bool value_embedding) {
  Array out = r.qkv;
  for (int64_t row = 0; row < r.B * r.T; ++row) {
    for (int64_t part = 0; part < 3; ++part) {
      for (int64_t h = 0; h < r.H; ++h) {
        const int64_t at = ((row * 3 + part) * r.H + h) * r.D;
        if (part == 2) {
          if (!value_embedding) continue;
          double logit = 0;
          for (int64_t c = 0; c < 12; ++c) logit += r.n.get(row * r.d + c) * r.gate_w.get(h * 12 + c);
          const int64_t token = static_cast<int64_t>(r.tokens.get(row));
          for (int64_t j = 0; j < r.D; ++j) {
            out.set(at + j, r.qkv.get(at + j) + 3 / (1 + std::exp(-logit)) * r.ve.get((token * r.H + h) * r.D + j));
          }
          continue;
        }
        double squares = 0;
        for (int64_t j = 0; j < r.D / 2; ++j) {
          const double angle = static_cast<double>(row % r.T) *
                               std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(r.D));
          const double x1 = r.qkv.get(at + j), x2 = r.qkv.get(at + j + r.D / 2);
          out.set(at + j, x1 * std::cos(angle) + x2 * std::sin(angle));
          out.set(at + j + r.D / 2, -x1 * std::sin(angle) + x2 * std::cos(angle));
          squares += x1 * x1 + x2 * x2;
        }
        const double rstd = 1 / std::sqrt(squares / static_cast<double>(r.D) + 1e-6);
        for (int64_t j = 0; j < r.D; ++j) out.set(at + j, out.get(at + j) * rstd);
      }
    }
  }
  return out;
}

TEST(QkNormRope, MatchesTheFormula) {
  Random random(40);
  for (const bool value_embedding : {false, true}) {
    for (int i = 0; i < 4; ++i) {
      const Rope r(DType::f64, random, random.integer(1, 3), random.integer(1, 9), random.integer(1, 3),
                   2 * random.integer(1, 20), 12 + i);
      test::expect_near(r.describe(), r.run(value_embedding), naive(r, value_embedding), 1e-12, 1e-12);
    }
  }
}

TEST(QkNormRope, LowerPrecisionRoundsOnce) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Random a(41), b(41);
    const Rope low(dtype, a, 2, 6, 2, 32, 20), exact(DType::f64, b, 2, 6, 2, 32, 20);
    test::expect_rounded(low.describe(), low.run(true), exact.run(true), 1, 1e-6);
  }
}

TEST(QkNormRope, DotProductsOfRotatedVectorsDependOnDistanceAlone) {
  Random random(42);
  Rope r(DType::f64, random, 1, 12, 1, 16, 12);
  for (int64_t t = 1; t < r.T; ++t) {
    for (int64_t j = 0; j < 48; ++j) r.qkv.set(t * 48 + j, r.qkv.get(j));
  }
  const Array out = r.run(false);
  const auto product = [&](int64_t tq, int64_t tk) {
    double sum = 0;
    for (int64_t j = 0; j < 16; ++j) sum += out.get(tq * 48 + j) * out.get(tk * 48 + 16 + j);
    return sum;
  };
  EXPECT_NEAR(product(5, 2), product(11, 8), 1e-12);
  EXPECT_GT(std::fabs(product(5, 2) - product(5, 4)), 1e-6);
}

TEST(ProjectQkv, IsTheProductAndThenQkNormRope) {
  Random random(46);
  for (const bool fp8 : {false, true}) {
    const Rope r(DType::bf16, random, 2, 5, 3, 16, 20);
    const int64_t N = r.B * r.T, columns = 3 * r.H * r.D;
    const Array x = random_array(random, DType::bf16, {N, r.d}), w = random_array(random, DType::bf16, {columns, r.d});
    const test::Fp8Array x8 = random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, N, r.d),
                         w8 = random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, columns, r.d);
    Array one = r.qkv, two = r.qkv, rstd = r.rstd;
    one.fill(1e30), two.fill(1e30), rstd.fill(1e30);
    const auto rope = [&](const Array& qkv, const Array& to) {
      return QkNormRopeArgs{qkv, r.cos, r.sin, to, r.T, r.tokens, r.ve, r.n, r.gate_w};
    };
    ProjectQkvArgs a{.rope = rope(one, rstd)};
    const Tensor out = two.t().view({N, columns});
    if (fp8) {
      a.x8 = x8, a.w8 = w8;
      cpu::gemm_fp8({.a = x8, .b = w8, .out = out});
    } else {
      a.x = x, a.w = w;
      cpu::gemm({.a = x, .b = w, .out = out});
    }
    cpu::project_qkv(a);
    cpu::qk_norm_rope(rope(two, r.rstd));
    EXPECT_TRUE(one.same_bytes(two)) << r.describe() << (fp8 ? " FP8" : " BF16");
    EXPECT_TRUE(rstd.same_bytes(r.rstd)) << r.describe() << (fp8 ? " FP8" : " BF16");
  }
}

TEST(ProjectQkv, RefusesPartOfASequenceBeforeItWrites) {
  Random random(47);
  Rope r(DType::f32, random, 1, 6, 1, 8, 12);
  const Array w = random_array(random, DType::f32, {24, 12}), before = r.qkv;
  ProjectQkvArgs a{.x = r.n, .w = w, .rope = {.qkv = r.qkv, .cos = r.cos, .sin = r.sin, .rstd = r.rstd, .T = 4}};
  EXPECT_NE(test::error_of([&] { cpu::project_qkv(a); }).find("6 rows are not whole sequences of 4"),
            std::string::npos);
  EXPECT_TRUE(r.qkv.same_bytes(before));
}

TEST(QkNormRopeGrad, MatchesCentralDifferences) {
  Random random(43);
  for (const bool value_embedding : {false, true}) {
    Rope r(DType::f64, random, 2, 5, 2, 2 * random.integer(2, 9), 15);
    const Array c = random_array(random, DType::f64, {r.B * r.T, 3, r.H, r.D}),
                cn = random_array(random, DType::f64, {r.B * r.T, r.d});
    const auto loss = [&] { return dot(r.run(value_embedding), c) + dot(r.n, cn); };
    const Array forward = r.run(value_embedding);
    Array dqkv = c, dve(DType::f64, {r.V, r.H * r.D}), dgate(DType::f64, {r.H, 12}), dn = cn;
    dve.fill(1), dgate.fill(1);
    QkNormRopeGradArgs g;
    g.dqkv = dqkv, g.qkv = forward, g.cos = r.cos, g.sin = r.sin, g.rstd = r.rstd, g.T = r.T;
    if (value_embedding) {
      g.tokens = r.tokens, g.ve_table = r.ve, g.n = r.n, g.gate_w = r.gate_w;
      g.ve_table_grad = dve, g.gate_w_grad = dgate, g.dn = dn;
    }
    cpu::qk_norm_rope_grad(g);
    check_gradient("qkv", loss, r.qkv, dqkv, 1e-6, 100);
    if (!value_embedding) continue;
    for (int64_t i = 0; i < dve.size(); ++i) dve.set(i, dve.get(i) - 1);  // they accumulate
    for (int64_t i = 0; i < dgate.size(); ++i) dgate.set(i, dgate.get(i) - 1);
    check_gradient("ve_table", loss, r.ve, dve);
    check_gradient("gate_w", loss, r.gate_w, dgate);
    check_gradient("n", loss, r.n, dn, 1e-6, 150);
  }
}

TEST(QkNormRopeGrad, LowerPrecisionFollowsDouble) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Array got[4], want[4];
    for (Array* to : {got, want}) {
      Random random(44);
      Rope r(to == got ? dtype : DType::f64, random, 2, 6, 2, 24, 16);
      const Array forward = r.run(true);
      to[0] = test::random_bf16_values(random, {r.B * r.T, 3, r.H, r.D}).as(r.dtype);
      to[1] = Array(r.stat, {r.V, r.H * r.D});
      to[2] = Array(r.stat, {r.H, 12});
      to[3] = Array(r.dtype, {r.B * r.T, r.d});
      QkNormRopeGradArgs g;
      g.dqkv = to[0], g.qkv = forward, g.cos = r.cos, g.sin = r.sin, g.rstd = r.rstd, g.T = r.T;
      g.tokens = r.tokens, g.ve_table = r.ve, g.n = r.n, g.gate_w = r.gate_w;
      g.ve_table_grad = to[1], g.gate_w_grad = to[2], g.dn = to[3];
      cpu::qk_norm_rope_grad(g);
    }
    const double u = dtype == DType::bf16 ? 0x1p-8 : 1e-6;
    for (int i = 0; i < 4; ++i)
      test::expect_near("gradient " + std::to_string(i), got[i], want[i], 2 * u, 2 * u * test::rms(want[i]));
  }
}

TEST(QkNormRope, RefusesPartOfASequence) {
  Random random(45);
  Rope r(DType::f32, random, 1, 6, 1, 8, 12);
  QkNormRopeArgs a;
  a.qkv = r.qkv, a.cos = r.cos, a.sin = r.sin, a.rstd = r.rstd, a.T = 4;
  EXPECT_NE(test::error_of([&] { cpu::qk_norm_rope(a); }).find("6 rows are not whole sequences of 4"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
