// embed_norm, mix_norm, embedding gradients: formulas in double, central differences, rounding bounds.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

double naive_rstd(const Array& x, int64_t row, int64_t d) {
  double sum = 0;
  for (int64_t j = 0; j < d; ++j) sum += x.get(row * d + j) * x.get(row * d + j);
  return 1 / std::sqrt(sum / static_cast<double>(d) + 1e-6);
}

struct Mix {
  int64_t N, d;
  Array x_in, x0, resid, skip, x, n, rstd;
  Mix(DType dtype, Random& random, int64_t N, int64_t d)
      : N(N),
        d(d),
        x_in(test::random_bf16_values(random, {N, d}).as(dtype)),
        x0(test::random_bf16_values(random, {N, d}).as(dtype)),
        resid(stat(dtype), {1}),
        skip(stat(dtype), {1}),
        x(dtype, {N, d}),
        n(dtype, {N, d}),
        rstd(stat(dtype), {N}) {
    resid.set(0, 0.8);
    skip.set(0, 0.3);
  }
  static DType stat(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }
  MixNormArgs args() const {
    MixNormArgs a;
    a.x_in = x_in, a.x0 = x0, a.resid_lambda = resid, a.x0_lambda = skip, a.x = x, a.n = n, a.rstd = rstd;
    return a;
  }
};

TEST(MixNorm, MatchesTheFormula) {
  Random random(20);
  for (int64_t d : {1, 7, 8, 33, 200}) {
    Mix m(DType::f64, random, random.integer(1, 9), d);
    cpu::mix_norm(m.args());
    Array x = m.x_in, n = x;
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, 0.8 * m.x_in.get(i) + 0.3 * m.x0.get(i));
    for (int64_t i = 0; i < x.size(); ++i) n.set(i, x.get(i) * naive_rstd(x, i / d, d));
    test::expect_rounded("x", m.x, x);
    test::expect_rounded("n", m.n, n);
  }
}

TEST(MixNorm, LowerPrecisionStaysWithinItsRoundings) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Random a(21), b(21);
    Mix low(dtype, a, 17, 90), exact(DType::f64, b, 17, 90);
    cpu::mix_norm(low.args());
    cpu::mix_norm(exact.args());
    test::expect_rounded("x", low.x, exact.x);
    test::expect_rounded("n", low.n, exact.n, 2);
  }
}

TEST(MixNorm, WithoutLambdasCopiesXAndMayAlias) {
  Random random(22);
  Mix m(DType::bf16, random, 5, 64);
  MixNormArgs plain;
  plain.x_in = m.x_in, plain.x = m.x, plain.n = m.n, plain.rstd = m.rstd;
  cpu::mix_norm(plain);
  EXPECT_TRUE(m.x.same_bytes(m.x_in));
  const Array n = m.n;
  plain.x = {};
  m.n.fill(0);
  cpu::mix_norm(plain);
  EXPECT_TRUE(n.same_bytes(m.n));
  cpu::mix_norm(m.args());
  const Array x = m.x;
  MixNormArgs aliased = m.args();
  aliased.x = m.x_in;
  cpu::mix_norm(aliased);
  EXPECT_TRUE(x.same_bytes(m.x_in));
}

TEST(MixNorm, Fp8CopyIsTheQuantisedRoundedNorm) {
  Random random(23);
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128}) {
    Mix m(DType::bf16, random, 6, 256);
    test::Fp8Array n8 = test::fp8_array(DType::fp8_e4m3, mode, 6, 256), want = n8;
    MixNormArgs args = m.args();
    args.n8 = n8;
    cpu::mix_norm(args);
    QuantizeArgs q{m.n, want};
    if (mode == ScaleMode::tensorwise) q.static_scale = 16.0f / 448.0f;
    cpu::quantize(q);
    EXPECT_TRUE(n8.codes.same_bytes(want.codes)) << to_string(mode);
    EXPECT_TRUE(n8.scales.same_bytes(want.scales)) << to_string(mode);
    EXPECT_GT(test::rms(n8.codes), 0) << to_string(mode);
  }
}

TEST(MixNorm, WorksOnWhatCombineWouldHaveWritten) {
  for (DType dtype : {DType::bf16, DType::f32, DType::f64}) {
    const DType stat = dtype == DType::f64 ? DType::f64 : DType::f32;
    Random random(26);
    Mix m(dtype, random, 9, 40);
    const Array y = random_array(random, dtype, {30, 40}), shared = random_array(random, dtype, {9, 40});
    const Array weights = random_array(random, stat, {9, 3}), slot = random_integers(random, {9, 3}, 0, 29);
    MixNormArgs fused = m.args();
    fused.add = {.y = y, .slot = slot, .weights = weights, .shared = shared};
    cpu::mix_norm(fused);
    const Array x = m.x, n = m.n, rstd = m.rstd;
    cpu::combine({.y = y, .slot = slot, .weights = weights, .shared = shared, .residual = m.x_in, .out = m.x_in});
    cpu::mix_norm(m.args());
    EXPECT_TRUE(x.same_bytes(m.x)) << to_string(dtype);
    EXPECT_TRUE(n.same_bytes(m.n)) << to_string(dtype);
    EXPECT_TRUE(rstd.same_bytes(m.rstd)) << to_string(dtype);
  }
  Random random(27);
  Mix m(DType::f32, random, 1, 8);
  Array y(DType::f32, {4, 8}), shared(DType::f32, {1, 8}), weights(DType::f32, {1, 1}), slot(DType::i32, {1, 1});
  slot.set(0, 4);
  MixNormArgs wrong = m.args();
  wrong.add = {.y = y, .slot = slot, .weights = weights, .shared = shared};
  EXPECT_NE(test::error_of([&] { cpu::mix_norm(wrong); }).find("slot 4 is outside the 4 rows of y"), std::string::npos);
}

// loss = <x, cx> + <n, cn>
TEST(MixNormGrad, MatchesCentralDifferences) {
  Random random(24);
  for (const bool norm_branch : {true, false}) {
    Mix m(DType::f64, random, 5, random.integer(9, 40));
    const Array cx = random_array(random, DType::f64, {m.N, m.d}), cn = random_array(random, DType::f64, {m.N, m.d});
    const auto loss = [&] {
      cpu::mix_norm(m.args());
      return dot(m.x, cx) + (norm_branch ? dot(m.n, cn) : 0);
    };
    loss();
    Array dx = cx, dx0(DType::f64, {m.N, m.d}), dresid(DType::f64, {1}), dskip(DType::f64, {1});
    dx0.fill(0.5), dresid.set(0, 2), dskip.set(0, 3);
    MixNormGradArgs g;
    if (norm_branch) g.dn = cn;
    g.n = m.n, g.rstd = m.rstd, g.x0 = m.x0, g.resid_lambda = m.resid, g.x0_lambda = m.skip;
    g.dx = dx, g.dx0 = dx0, g.resid_lambda_grad = dresid, g.x0_lambda_grad = dskip;
    cpu::mix_norm_grad(g);
    for (int64_t i = 0; i < dx0.size(); ++i) dx0.set(i, dx0.get(i) - 0.5);  // it accumulates
    dresid.set(0, dresid.get(0) - 2), dskip.set(0, dskip.get(0) - 3);
    check_gradient("x_in", loss, m.x_in, dx);
    check_gradient("x0", loss, m.x0, dx0);
    check_gradient("resid_lambda", loss, m.resid, dresid);
    check_gradient("x0_lambda", loss, m.skip, dskip);
  }
}

TEST(MixNormGrad, WritesTheNormedRowsTransposed) {
  Random random(28);
  Mix m(DType::bf16, random, 5, 48);
  cpu::mix_norm(m.args());
  Array dx = random_array(random, DType::bf16, {5, 48});
  test::Fp8Array n8t = test::fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 48, 5), want = n8t;
  cpu::mix_norm_grad({.n = m.n, .rstd = m.rstd, .dx = dx, .n8t = n8t});
  cpu::quantize({.x = m.n, .transposed = want, .static_scale = std::sqrt(48.0f) / 448});
  EXPECT_TRUE(n8t.codes.same_bytes(want.codes) && n8t.scales.same_bytes(want.scales));
  EXPECT_GT(test::rms(n8t.codes), 0);
}

TEST(MixNormGrad, WithoutLambdasIsTheNormGradientPlusTheResidualPath) {
  Random random(25);
  Mix m(DType::f64, random, 4, 21);
  const Array cx = random_array(random, DType::f64, {m.N, m.d}), cn = random_array(random, DType::f64, {m.N, m.d});
  MixNormArgs args;
  args.x_in = m.x_in, args.n = m.n, args.rstd = m.rstd;
  const auto loss = [&] {
    cpu::mix_norm(args);
    return dot(m.x_in, cx) + dot(m.n, cn);
  };
  loss();
  Array dx = cx;
  MixNormGradArgs g;
  g.dn = cn, g.n = m.n, g.rstd = m.rstd, g.dx = dx;
  cpu::mix_norm_grad(g);
  check_gradient("x_in", loss, m.x_in, dx);
}

TEST(MixNormGrad, LowerPrecisionFollowsDouble) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (DType dx0_dtype : {dtype, DType::f32}) {
      Array got[4], want[4];
      for (Array* to : {got, want}) {
        Random random(26);
        const DType t = to == got ? dtype : DType::f64;
        Mix m(t, random, 12, 72);
        cpu::mix_norm(m.args());
        const Array dn = test::random_bf16_values(random, {m.N, m.d}).as(t);
        to[0] = test::random_bf16_values(random, {m.N, m.d}).as(t);
        to[1] = Array(t == DType::f64 ? t : dx0_dtype, {m.N, m.d});
        to[2] = to[3] = Array(Mix::stat(t), {1});
        MixNormGradArgs g;
        g.dn = dn, g.n = m.n, g.rstd = m.rstd, g.x0 = m.x0, g.resid_lambda = m.resid, g.x0_lambda = m.skip;
        g.dx = to[0], g.dx0 = to[1], g.resid_lambda_grad = to[2], g.x0_lambda_grad = to[3];
        cpu::mix_norm_grad(g);
      }
      const double u = dtype == DType::bf16 ? 0x1p-8 : 1e-6;
      for (int i = 0; i < 4; ++i)
        test::expect_near("gradient " + std::to_string(i), got[i], want[i], 3 * u, 3 * u * test::rms(want[i]));
    }
  }
}

TEST(EmbedNorm, RoundsTheTableFirstAndMatchesTheFormula) {
  Random random(27);
  const int64_t V = 11, N = 30, d = 52;
  const Array table = random_array(random, DType::f32, {V, d}), tokens = random_integers(random, {N}, 0, V - 1);
  Array rounded = table.as(DType::bf16), want(DType::f64, {N, d});
  for (int64_t i = 0; i < N * d; ++i) {
    const int64_t token = static_cast<int64_t>(tokens.get(i / d));
    want.set(i, rounded.get(token * d + i % d) * naive_rstd(rounded, token, d));
  }
  Array x(DType::bf16, {N, d}), rstd(DType::f32, {N});
  cpu::embed_norm({tokens, table, x, rstd});
  test::expect_rounded("x", x, want);
}

TEST(EmbedNormGrad, MatchesCentralDifferencesWithRepeatedTokens) {
  Random random(28);
  const int64_t V = 5, N = 40, d = 19;
  Array table = random_array(random, DType::f64, {V, d});
  const Array tokens = random_integers(random, {N}, 0, V - 2),
              c = random_array(random, DType::f64, {N, d});  // the last never
  Array x(DType::f64, {N, d}), rstd(DType::f64, {N}), grad(DType::f64, {V, d});
  const auto loss = [&] {
    cpu::embed_norm({tokens, table, x, rstd});
    return dot(x, c);
  };
  loss();
  cpu::embed_norm_grad({tokens, x, rstd, c, grad});
  check_gradient("table", loss, table, grad, 1e-6, V * d);
}

TEST(EmbedGrad, SumsTheRowsOfATokenInOrderOnTopOfWhatIsThere) {
  Random random(29);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const int64_t V = 4, N = 50, d = 70;
    const DType stat = Mix::stat(dtype);
    const Array dy = random_array(random, dtype, {N, d}), tokens = random_integers(random, {N}, 0, V - 1);
    Array grad = random_array(random, stat, {V, d}), want = grad;
    for (int64_t i = 0; i < N * d; ++i) {  // Array::set rounds to stat, as each addition does
      const int64_t at = static_cast<int64_t>(tokens.get(i / d)) * d + i % d;
      want.set(at, want.get(at) + dy.get(i));
    }
    cpu::embed_grad({tokens, dy, grad});
    EXPECT_TRUE(grad.same_bytes(want)) << to_string(dtype) << " seed " << test::seed();
  }
}

TEST(EmbedNormGrad, AcceptsAnFp32GradientOfBf16Rows) {
  Random random(30);
  const int64_t V = 6, N = 20, d = 40;
  const Array table = test::random_bf16_values(random, {V, d}), tokens = random_integers(random, {N}, 0, V - 1);
  const Array dx = test::random_bf16_values(random, {N, d});
  Array x64(DType::f64, {N, d}), rstd64(DType::f64, {N}), want(DType::f64, {V, d});
  cpu::embed_norm({tokens, table, x64, rstd64});
  cpu::embed_norm_grad({tokens, x64, rstd64, dx, want});
  for (DType dx_dtype : {DType::bf16, DType::f32}) {
    Array x(DType::bf16, {N, d}), rstd(DType::f32, {N}), grad(DType::f32, {V, d});
    cpu::embed_norm({tokens, table.as(DType::f32), x, rstd});
    cpu::embed_norm_grad({tokens, x, rstd, dx.as(dx_dtype), grad});
    test::expect_near("table_grad", grad, want, 0x1p-7, 0x1p-7 * test::rms(want));
  }
}

}  // namespace
}  // namespace assay
