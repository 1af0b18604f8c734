// The end of a mixture-of-experts block's backward, from the routed rows to the input of its norm.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

// A block whose routed rows and shared expert are linear in n: loss = <x, cx> + sum <n, shared> + sum <n, rows[slot]> +
// sum gates[slot] * weight.
struct Block {
  int64_t N, d, E, k, R;
  DType dtype, stat;
  Array x, w, n, rstd, picks, probs, weights, slot, rows, shared, gates, cx, dx, dw;
  Block(DType dtype, Random& random, int64_t N, int64_t d, int64_t E, int64_t k)
      : N(N),
        d(d),
        E(E),
        k(k),
        R(N * k + 3),
        dtype(dtype),
        stat(dtype == DType::f64 ? DType::f64 : DType::f32),
        x(random_bf16_values(random, {N, d}).as(dtype)),
        w(random_bf16_values(random, {E, d}, 0.3).as(stat)),
        n(dtype, {N, d}),
        rstd(stat, {N}),
        picks(DType::i32, {N, k}),
        probs(stat, {N, k}),
        weights(stat, {N, k}),
        slot(DType::i32, {N, k}),
        rows(random_bf16_values(random, {R, d}).as(dtype)),
        shared(random_bf16_values(random, {N, d}).as(dtype)),
        gates(random_bf16_values(random, {R}).as(stat)),
        cx(random_bf16_values(random, {N, d}).as(dtype)),
        dx(cx),
        dw(stat, {E, d}) {
    for (int64_t i = 0; i < N * k; ++i) slot.set(i, static_cast<double>((i * 7 + 2) % R));
    Array bias(DType::f32, {E}), counts(DType::i32, {E});
    cpu::norm_route({.x = x,
                     .router_w = w,
                     .bias = bias,
                     .n = n,
                     .rstd = rstd,
                     .picks = picks,
                     .probs = probs,
                     .weights = weights,
                     .counts = counts});
  }
  MoeNormGradArgs args() {
    return {.dxg = rows,
            .slot = slot,
            .dn_shared = shared,
            .gate_grad = gates,
            .picks = picks,
            .probs = probs,
            .weights = weights,
            .n = n,
            .rstd = rstd,
            .router_w = w,
            .router_w_grad = dw,
            .dx = dx};
  }
  int64_t at(const Array& integers, int64_t i) const { return static_cast<int64_t>(integers.get(i)); }
  double loss() {
    cpu::mix_norm({.x_in = x, .n = n, .rstd = rstd});
    double loss = dot(x, cx) + dot(n, shared);
    for (int64_t t = 0; t < N; ++t) {
      std::vector<double> p;
      double sum = 0;
      for (int64_t j = 0; j < k; ++j) {
        double logit = 0;
        for (int64_t i = 0; i < d; ++i) {
          logit += n.get(t * d + i) * w.get(at(picks, t * k + j) * d + i);
          loss += n.get(t * d + i) * rows.get(at(slot, t * k + j) * d + i);
        }
        p.push_back(1 / (1 + std::exp(-logit)));
        sum += p.back();
      }
      for (int64_t j = 0; j < k; ++j) loss += gates.get(at(slot, t * k + j)) * p[static_cast<size_t>(j)] / sum;
    }
    return loss;
  }
};

TEST(MoeNormGrad, MatchesCentralDifferences) {
  Random random(64);
  for (int64_t k : {1, 2, 4}) {
    Block b(DType::f64, random, 7, 23, 6, k);
    b.dw.fill(1);
    cpu::moe_norm_grad(b.args());
    for (int64_t i = 0; i < b.dw.size(); ++i) b.dw.set(i, b.dw.get(i) - 1);  // it accumulates
    const std::string what = ", k " + std::to_string(k);
    check_gradient(
        "x" + what, [&] { return b.loss(); }, b.x, b.dx);
    if (k > 1) {
      check_gradient(
          "router_w" + what, [&] { return b.loss(); }, b.w, b.dw);
    } else {
      EXPECT_LT(test::rms(b.dw), 1e-12) << "a single weight is 1 whatever the router says";
    }
  }
}

TEST(MoeNormGrad, LowerPrecisionFollowsDouble) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Random random(65);
    Block low(dtype, random, 20, 48, 5, 2);
    Random again(65);
    Block exact(DType::f64, again, 20, 48, 5, 2);
    exact.n = low.n.as(DType::f64), exact.rstd = low.rstd.as(DType::f64), exact.picks = low.picks;
    exact.probs = low.probs.as(DType::f64), exact.weights = low.weights.as(DType::f64);
    cpu::moe_norm_grad(low.args());
    cpu::moe_norm_grad(exact.args());
    test::expect_rounded("dx", low.dx, exact.dx);  // one rounding: dn is never stored
    test::expect_rounded("router_w_grad", low.dw, exact.dw);
  }
}

TEST(MoeNormGrad, CodesAreThoseOfQuantizeOnTheStoredGradient) {
  for (const bool calibrate : {false, true}) {
    for (const float scale : {0.0f, 0.02f}) {
      Random random(66);
      Block b(DType::bf16, random, 20, 48, 5, 2);
      const ScaleMode mode = ScaleMode::tensorwise;
      test::Fp8Array dx8 = test::fp8_array(DType::fp8_e5m2, mode, 20, 48), want = dx8;
      test::Fp8Array dx8t = test::fp8_array(DType::fp8_e5m2, mode, 48, 20), want_t = dx8t;
      float delayed = scale, amax = 0.5f, want_amax = 0.5f;
      MoeNormGradArgs a = b.args();
      a.dx8 = dx8, a.dx8t = dx8t, a.dx8_scale = {&delayed, &amax}, a.calibrate = calibrate;
      test::Fp8Array n8t = test::fp8_array(DType::fp8_e4m3, mode, 48, 20), want_n = n8t;
      a.n8t = n8t;
      cpu::moe_norm_grad(a);
      cpu::quantize({.x = b.n, .transposed = want_n, .static_scale = std::sqrt(48.0f) / 448});
      EXPECT_TRUE(n8t.codes.same_bytes(want_n.codes) && n8t.scales.same_bytes(want_n.scales));
      EXPECT_GT(test::rms(n8t.codes), 0);
      float known = scale > 0 || calibrate ? scale : 1;
      cpu::quantize({.x = b.dx, .out = want, .transposed = want_t, .delayed = {&known, &want_amax}});
      EXPECT_TRUE(dx8.codes.same_bytes(want.codes) && dx8.scales.same_bytes(want.scales)) << scale << calibrate;
      EXPECT_TRUE(dx8t.codes.same_bytes(want_t.codes) && dx8t.scales.same_bytes(want_t.scales)) << scale << calibrate;
      EXPECT_EQ(amax, want_amax);
      EXPECT_GT(amax, 0.5f);
      EXPECT_GT(test::rms(dx8.codes), 0);
    }
  }
}

TEST(MoeNormGrad, RefusesSlotsOutsideTheBuffer) {
  Random random(67);
  Block b(DType::f32, random, 2, 8, 3, 1);
  b.slot.set(1, static_cast<double>(b.R));
  EXPECT_NE(test::error_of([&] { cpu::moe_norm_grad(b.args()); }).find("slot 5 of 5 rows"), std::string::npos);
}

}  // namespace
}  // namespace assay
