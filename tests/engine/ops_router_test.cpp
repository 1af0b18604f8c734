// Routing: norm + router, its gradient, the layout of permuted rows, moving rows there and back.
#include <gtest/gtest.h>

#include <cmath>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

struct Router {
  int64_t N, d, E, k;
  Array x, w, bias, n, rstd, picks, probs, weights, counts;
  Router(DType dtype, Random& random, int64_t N, int64_t d, int64_t E, int64_t k)
      : N(N),
        d(d),
        E(E),
        k(k),
        x(test::random_bf16_values(random, {N, d}).as(dtype)),
        w(random_array(random, DType::f32, {E, d}, 0.3).as(stat(dtype))),
        bias(random_array(random, DType::f32, {E}, 0.1)),
        n(dtype, {N, d}),
        rstd(stat(dtype), {N}),
        picks(DType::i32, {N, k}),
        probs(stat(dtype), {N, k}),
        weights(stat(dtype), {N, k}),
        counts(DType::i32, {E}) {}
  static DType stat(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }
  void run() {
    NormRouteArgs a;
    a.x = x, a.router_w = w, a.bias = bias, a.n = n, a.rstd = rstd;
    a.picks = picks, a.probs = probs, a.weights = weights, a.counts = counts;
    cpu::norm_route(a);
  }
  int64_t pick(int64_t i) const { return static_cast<int64_t>(picks.get(i)); }
};

TEST(NormRoute, MatchesTheFormula) {
  Random random(60);
  for (int i = 0; i < 5; ++i) {
    const int64_t E = random.integer(1, 12);
    Router r(DType::f64, random, random.integer(1, 20), random.integer(1, 50), E, random.integer(1, E));
    r.run();
    Array counts(DType::i32, {E});
    for (int64_t t = 0; t < r.N; ++t) {
      std::vector<std::pair<double, int64_t>> order;  // -(p + bias), expert: sorts ties to the lower index
      std::vector<double> p;
      for (int64_t e = 0; e < E; ++e) {
        double logit = 0;
        for (int64_t j = 0; j < r.d; ++j) logit += r.n.get(t * r.d + j) * r.w.get(e * r.d + j);
        p.push_back(1 / (1 + std::exp(-logit)));
        order.push_back({-(p.back() + r.bias.get(e)), e});
      }
      std::sort(order.begin(), order.end());
      double sum = 0;
      for (int64_t j = 0; j < r.k; ++j) sum += p[static_cast<size_t>(order[static_cast<size_t>(j)].second)];
      for (int64_t j = 0; j < r.k; ++j) {
        const int64_t e = order[static_cast<size_t>(j)].second;
        EXPECT_EQ(r.pick(t * r.k + j), e) << "token " << t << " seed " << test::seed();
        EXPECT_NEAR(r.probs.get(t * r.k + j), p[static_cast<size_t>(e)], 1e-12);
        EXPECT_NEAR(r.weights.get(t * r.k + j), p[static_cast<size_t>(e)] / sum, 1e-12);
        counts.set(e, counts.get(e) + 1);
      }
    }
    EXPECT_TRUE(counts.same_bytes(r.counts));
  }
}

TEST(NormRoute, TiesGoToTheLowerExpert) {
  Random random(61);
  Router r(DType::bf16, random, 9, 32, 6, 3);
  r.w.fill(0);  // every p is 1/2
  r.bias.fill(0);
  r.bias.set(4, 0.25);
  r.run();
  for (int64_t t = 0; t < r.N; ++t) {
    EXPECT_EQ(r.pick(t * 3), 4);
    EXPECT_EQ(r.pick(t * 3 + 1), 0);
    EXPECT_EQ(r.pick(t * 3 + 2), 1);
    EXPECT_FLOAT_EQ(static_cast<float>(r.weights.get(t * 3)), 1.0f / 3);  // the bias selects, it does not weigh
  }
  EXPECT_EQ(r.counts.get(4), 9);
  EXPECT_EQ(r.counts.get(5), 0);
}

TEST(NormRoute, NormAndWeightsAgreeWithDoubleInLowerPrecision) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Random a(62), b(62);
    Router low(dtype, a, 30, 64, 8, 2), exact(DType::f64, b, 30, 64, 8, 2);
    low.run();
    test::expect_rounded("n", low.n, [&] {
      exact.run();
      return exact.n;
    }());
    exact.x = low.n.as(DType::f64);  // norm of a normed row: the router then sees what the low one saw
    exact.run();
    int same = 0;
    for (int64_t t = 0; t < low.N; ++t) {
      if (low.pick(2 * t) != exact.pick(2 * t) || low.pick(2 * t + 1) != exact.pick(2 * t + 1)) continue;
      ++same;
      EXPECT_NEAR(low.weights.get(2 * t), exact.weights.get(2 * t), 2e-3) << "token " << t;
    }
    EXPECT_GE(same, 28) << "picks differ beyond chance, seed " << test::seed();
  }
}

TEST(NormRoute, AnInputOfNanStillPicksDistinctExperts) {
  Random random(63);
  Router r(DType::f32, random, 2, 8, 4, 3);
  for (int64_t j = 0; j < 8; ++j) r.x.set(j, std::nan(""));
  r.run();
  for (int64_t j = 0; j < 3; ++j) EXPECT_EQ(r.pick(j), j);
}

struct Plan {
  Array start, rows, slot, token_of, gate_of;
  Plan(int64_t N, int64_t k, int64_t E, int64_t R, DType stat)
      : start(DType::i32, {E}),
        rows(DType::i32, {E}),
        slot(DType::i32, {N, k}),
        token_of(DType::i32, {R}),
        gate_of(stat, {R}) {
    token_of.fill(12345), gate_of.fill(7);
  }
};

Array count(const Array& picks, int64_t E) {
  Array counts(DType::i32, {E});
  for (int64_t i = 0; i < picks.size(); ++i)
    counts.set(static_cast<int64_t>(picks.get(i)), counts.get(static_cast<int64_t>(picks.get(i))) + 1);
  return counts;
}

// Everything the layout promises, checked from the picks alone.
void check_plan(const Array& picks, const Array& weights, const Plan& p, int64_t capacity, int64_t E, int64_t k) {
  const Array counts = count(picks, E);
  std::vector<int64_t> seen(static_cast<size_t>(p.token_of.size()), 0);
  int64_t next = 0;
  for (int64_t e = 0; e < E; ++e) {
    const int64_t start = capacity > 0 ? e * capacity : next, used = static_cast<int64_t>(counts.get(e));
    ASSERT_EQ(p.start.get(e), start) << "expert " << e;
    ASSERT_EQ(p.rows.get(e), capacity > 0 ? capacity : used) << "expert " << e;
    next = start + used;
    for (int64_t r = start + 1; r < start + used; ++r)
      ASSERT_LT(p.token_of.get(r - 1), p.token_of.get(r)) << "row " << r;
  }
  for (int64_t i = 0; i < picks.size(); ++i) {
    const int64_t row = static_cast<int64_t>(p.slot.get(i)), e = static_cast<int64_t>(picks.get(i));
    ASSERT_GE(row, p.start.get(e));
    ASSERT_LT(row, p.start.get(e) + counts.get(e));
    ASSERT_EQ(p.token_of.get(row), static_cast<double>(i / k));
    ASSERT_EQ(p.gate_of.get(row), weights.get(i));
    ++seen[static_cast<size_t>(row)];
  }
  for (int64_t r = 0; r < p.token_of.size(); ++r) {
    ASSERT_EQ(seen[static_cast<size_t>(r)], p.token_of.get(r) >= 0 ? 1 : 0) << "row " << r;
    if (p.token_of.get(r) < 0) {
      ASSERT_EQ(p.gate_of.get(r), 0) << "padding row " << r;
    }
  }
}

Array picks_for(Random& random, int64_t N, int64_t k, int64_t E, int everything_to) {
  Array picks(DType::i32, {N, k});
  for (int64_t t = 0; t < N; ++t) {
    const int64_t first = everything_to >= 0 ? everything_to : random.integer(0, E - 1);
    for (int64_t j = 0; j < k; ++j) picks.set(t * k + j, static_cast<double>((first + j) % E));
  }
  return picks;
}

TEST(RoutePlan, LaysRowsOutByExpertInTokenOrder) {
  Random random(66);
  for (int64_t k : {1, 2, 3}) {
    for (int everything_to : {-1, 0, 3}) {
      const int64_t N = random.integer(1, 40), E = 4;
      const Array picks = picks_for(random, N, k, E, everything_to), weights = random_array(random, DType::f32, {N, k});
      Plan dynamic(N, k, E, N * k + 3, DType::f32);
      cpu::route_plan({picks, count(picks, E), weights, 0, dynamic.start, dynamic.rows, dynamic.slot, dynamic.token_of,
                       dynamic.gate_of});
      check_plan(picks, weights, dynamic, 0, E, k);
      Plan fixed(N, k, E, E * N, DType::f32);
      cpu::route_plan(
          {picks, count(picks, E), weights, N, fixed.start, fixed.rows, fixed.slot, fixed.token_of, fixed.gate_of});
      check_plan(picks, weights, fixed, N, E, k);
    }
  }
}

TEST(RoutePlan, KeepsAnExpertBeyondCapacityInsideTheBuffer) {
  Random random(67);
  const Array picks = picks_for(random, 10, 1, 4, 2), weights = random_array(random, DType::f32, {10, 1});
  Plan p(10, 1, 4, 4 * 7, DType::f32);
  cpu::route_plan({picks, count(picks, 4), weights, 7, p.start, p.rows, p.slot, p.token_of, p.gate_of});
  for (int64_t t = 0; t < 10; ++t) EXPECT_EQ(p.slot.get(t), 14 + std::min<int64_t>(t, 6)) << "token " << t;
  for (int64_t r = 0; r < 28; ++r) {
    const bool used = r >= 14 && r < 21;
    EXPECT_EQ(p.token_of.get(r), used ? static_cast<double>(r - 14) : -1) << "row " << r;
    EXPECT_EQ(p.gate_of.get(r), used ? weights.get(r - 14) : 0) << "row " << r;
  }
}

TEST(Permute, ThenCombineWithOnePickOfWeightOneIsTheIdentity) {
  Random random(68);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const DType stat = Router::stat(dtype);
    const int64_t N = random.integer(1, 50), d = random.integer(1, 40), E = 5;
    const Array picks = picks_for(random, N, 1, E, -1), x = random_array(random, dtype, {N, d});
    Array weights(stat, {N, 1});
    weights.fill(1);
    for (int64_t capacity : {int64_t{0}, N}) {
      const int64_t R = capacity > 0 ? E * N : N;
      Plan p(N, 1, E, R, stat);
      cpu::route_plan({picks, count(picks, E), weights, capacity, p.start, p.rows, p.slot, p.token_of, p.gate_of});
      Array moved = random_array(random, dtype, {R, d}), back(dtype, {N, d});
      cpu::permute({p.token_of, x, moved});
      cpu::combine({moved, p.slot, weights, {}, {}, back});
      EXPECT_TRUE(back.same_bytes(x)) << x.t().describe() << " capacity " << capacity;
      back.fill(0);
      cpu::combine({moved, p.slot, {}, {}, {}, back});
      EXPECT_TRUE(back.same_bytes(x)) << x.t().describe() << " weights empty";
      for (int64_t r = 0; r < R; ++r) {
        if (p.token_of.get(r) < 0) {
          ASSERT_EQ(moved.get(r * d), 0) << "padding row " << r;
        }
      }
    }
  }
}

TEST(Permute, MovesCodesAndScalesAsTheyAre) {
  Random random(69);
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128}) {
    const int64_t N = 6, K = 200, R = 9, per_row = mode == ScaleMode::block_1x128 ? 2 : 1;
    const test::Fp8Array x = random_fp8(random, DType::fp8_e4m3, mode, N, K);
    const Array token_of = random_integers(random, {R}, -1, N - 1);
    test::Fp8Array out = test::fp8_array(DType::fp8_e4m3, mode, R, K);
    PermuteArgs args;
    args.token_of = token_of, args.x8 = x, args.out8 = out;
    cpu::permute(args);
    for (int64_t i = 0; i < R * K; ++i) {
      const int64_t token = static_cast<int64_t>(token_of.get(i / K));
      ASSERT_EQ(out.codes.get(i), token < 0 ? 0 : x.codes.get(token * K + i % K)) << to_string(mode) << " " << i;
    }
    if (mode == ScaleMode::tensorwise) {
      EXPECT_EQ(out.scales.get(0), x.scales.get(0));
      continue;
    }
    for (int64_t i = 0; i < R * per_row; ++i) {
      const int64_t token = static_cast<int64_t>(token_of.get(i / per_row));
      ASSERT_EQ(out.scales.get(i), token < 0 ? 1 : x.scales.get(token * per_row + i % per_row))
          << to_string(mode) << " " << i;
    }
  }
}

TEST(Combine, SumsInFp32InItsOrderAndRoundsOnce) {
  Random random(70);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const DType stat = Router::stat(dtype);
    const int64_t N = 13, k = 3, d = 31, R = 50;
    const Array y = random_array(random, dtype, {R, d}), slot = random_integers(random, {N, k}, 0, R - 1);
    const Array weights = random_array(random, stat, {N, k}), shared = random_array(random, dtype, {N, d});
    Array out = random_array(random, dtype, {N, d}), want(dtype, {N, d});
    for (int64_t i = 0; i < N * d; ++i) {
      Array sum(stat, {1});  // rounds each partial sum as the op does
      for (int64_t j = 0; j < k; ++j) {
        Array term(stat, {1});
        term.set(0, weights.get(i / d * k + j) * y.get(static_cast<int64_t>(slot.get(i / d * k + j)) * d + i % d));
        sum.set(0, sum.get(0) + term.get(0));
      }
      sum.set(0, sum.get(0) + shared.get(i));
      sum.set(0, sum.get(0) + out.get(i));
      want.set(i, sum.get(0));
    }
    cpu::combine({y, slot, weights, shared, out, out});
    EXPECT_TRUE(out.same_bytes(want)) << to_string(dtype) << " seed " << test::seed();
  }
}

TEST(RouterBias, MovesTowardsTheMeanLoad) {
  Array bias(DType::f32, {4}), total(DType::i32, {4});
  const int loads[] = {3, 10, 6, 5};  // mean 6
  for (int64_t e = 0; e < 4; ++e) total.set(e, loads[e]);
  bias.fill(1);
  cpu::router_bias_update({bias, total, 0.25f});
  EXPECT_EQ(bias.get(0), 1.25);
  EXPECT_EQ(bias.get(1), 0.75);
  EXPECT_EQ(bias.get(2), 1.0);
  EXPECT_EQ(bias.get(3), 1.25);
}

}  // namespace
}  // namespace assay
