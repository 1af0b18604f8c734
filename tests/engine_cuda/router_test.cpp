#include <algorithm>
#include <set>

#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t N, d, E, k;
};

// What norm_route writes, on the host.
struct Routed {
  Array n, rstd, picks, probs, weights, counts;
  Routed(DType dtype, const Shape& s)
      : n(poisoned(dtype, {s.N, s.d})),
        rstd(poisoned(DType::f32, {s.N})),
        picks(poisoned(DType::i32, {s.N, s.k})),
        probs(poisoned(DType::f32, {s.N, s.k})),
        weights(poisoned(DType::f32, {s.N, s.k})),
        counts(poisoned(DType::i32, {s.E})) {}
};

Routed route_on_device(const Array& x, const Array& w, const Array& bias, const Shape& s, const Quantized& n8 = {}) {
  Routed r(x.dtype(), s);
  const Mirror dx(x), dw(w), dbias(bias), n(r.n), rstd(r.rstd), picks(r.picks), probs(r.probs), weights(r.weights),
      counts(r.counts);
  cuda::norm_route(nullptr, {dx, dw, dbias, n, rstd, n8, picks, probs, weights, counts});
  r.n = n.back(), r.rstd = rstd.back(), r.picks = picks.back(), r.probs = probs.back(), r.weights = weights.back(),
  r.counts = counts.back();
  return r;
}

// The score p + bias of every expert for row t of n, in double.
std::vector<double> scores(const Array& n, const Array& w, const Array& bias, const Shape& s, int64_t t) {
  std::vector<double> all;
  for (int64_t e = 0; e < s.E; ++e) {
    double logit = 0;
    for (int64_t j = 0; j < s.d; ++j) logit += n.get(t * s.d + j) * w.get(e * s.d + j);
    all.push_back(1 / (1 + std::exp(-logit)) + bias.get(e));
  }
  return all;
}

TEST(CudaNormRoute, FollowsItsTwinWhereNoTieIsNear) {
  ASSAY_NEEDS_GPU();
  Random random(20);
  const Shape shapes[] = {{1, 768, 8, 2},    {131, 768, 8, 2}, {50, 128, 4, 1}, {37, 1536, 64, 8}, {29, 2048, 16, 3},
                          {65, 768, 128, 8}, {66, 768, 17, 2}, {40, 256, 5, 5}, {3, 1000, 3, 2}};
  for (const Shape& s : shapes) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      if (dtype == DType::f32 && s.d > 1536) continue;
      const std::string what = shape_text(dtype, {s.N, s.d}) + " to " + std::to_string(s.E);
      const Array x = random_array(random, dtype, {s.N, s.d}), bias = random_array(random, DType::f32, {s.E}, 0.1);
      const Array w = random_array(random, DType::f32, {s.E, s.d}, 1 / std::sqrt(static_cast<double>(s.d)));
      const Routed got = route_on_device(x, w, bias, s);
      Routed want(dtype, s);
      cpu::norm_route({x, w, bias, want.n, want.rstd, {}, want.picks, want.probs, want.weights, want.counts});
      expect_close("n " + what, got.n, want.n);
      expect_close("rstd " + what, got.rstd, want.rstd);
      Array counts(DType::i32, {s.E});
      for (int64_t t = 0; t < s.N; ++t) {
        const std::vector<double> score = scores(got.n, w, bias, s, t);
        std::vector<bool> taken(static_cast<size_t>(s.E));
        double sum = 0;
        for (int64_t j = 0; j < s.k; ++j) {
          const int64_t pick = static_cast<int64_t>(got.picks.get(t * s.k + j));
          ASSERT_TRUE(pick >= 0 && pick < s.E) << what << " row " << t << " picks " << pick;
          ASSERT_FALSE(taken[static_cast<size_t>(pick)]) << what << " row " << t << " picks " << pick << " twice";
          taken[static_cast<size_t>(pick)] = true;
          for (int64_t e = 0; e < s.E; ++e) {
            if (taken[static_cast<size_t>(e)]) continue;
            ASSERT_GE(score[static_cast<size_t>(pick)], score[static_cast<size_t>(e)] - 1e-5)
                << what << " row " << t << " pick " << j << " is " << pick << ", expert " << e << " scores higher";
          }
          EXPECT_NEAR(got.probs.get(t * s.k + j), score[static_cast<size_t>(pick)] - bias.get(pick), 2e-6) << what;
          sum += got.probs.get(t * s.k + j);
          counts.set(pick, counts.get(pick) + 1);
        }
        for (int64_t j = 0; j < s.k; ++j)
          EXPECT_NEAR(got.weights.get(t * s.k + j), got.probs.get(t * s.k + j) / sum, 1e-6) << what;
      }
      expect_same("counts " + what, got.counts, counts);
    }
  }
}

TEST(CudaNormRoute, TiesGoToTheLowerExpertAndNanPicksAreDistinct) {
  ASSAY_NEEDS_GPU();
  Random random(21);
  const Shape s{20, 128, 12, 3};
  Array x = random_array(random, DType::bf16, {s.N, s.d}), w = random_array(random, DType::f32, {s.E, s.d}, 0.1);
  for (int64_t e = 0; e < s.E; ++e)
    for (int64_t j = 0; j < s.d; ++j) w.set(e * s.d + j, w.get(j));
  for (int64_t j = 0; j < s.d; ++j) x.set(7 * s.d + j, std::nan(""));
  Array bias(DType::f32, {s.E});
  bias.set(5, 0.5), bias.set(9, 0.5);
  const Routed got = route_on_device(x, w, bias, s);
  for (int64_t t = 0; t < s.N; ++t) {
    const bool nan = t == 7;
    EXPECT_EQ(got.picks.get(t * 3), nan ? 0 : 5) << "row " << t;
    EXPECT_EQ(got.picks.get(t * 3 + 1), nan ? 1 : 9) << "row " << t;
    EXPECT_EQ(got.picks.get(t * 3 + 2), nan ? 2 : 0) << "row " << t;
  }
}

TEST(CudaNormRoute, QuantisesWhatItWrote) {
  ASSAY_NEEDS_GPU();
  Random random(22);
  const Shape s{70, 768, 8, 2};
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128}) {
    const Array x = random_array(random, DType::bf16, {s.N, s.d}),
                w = random_array(random, DType::f32, {s.E, s.d}, 0.1);
    Fp8Array want = fp8_array(DType::fp8_e4m3, mode, s.N, s.d);
    const Fp8Mirror n8(poisoned(want));
    const Routed got = route_on_device(x, w, Array(DType::f32, {s.E}), s, n8);
    QuantizeArgs args{.x = got.n, .out = want};
    if (mode == ScaleMode::tensorwise) args.static_scale = std::sqrt(768.0f) / e4m3_max;
    cpu::quantize(args);
    expect_same(to_string(mode), n8.back(), want);
  }
}

Array distinct_picks(Random& random, const Shape& s, int everything_to = -1) {
  Array picks(DType::i32, {s.N, s.k});
  for (int64_t t = 0; t < s.N; ++t) {
    const int64_t first = everything_to >= 0 ? everything_to : random.integer(0, s.E - 1);
    for (int64_t j = 0; j < s.k; ++j) picks.set(t * s.k + j, static_cast<double>((first + j) % s.E));
  }
  return picks;
}

Array counts_of(const Array& picks, int64_t experts) {
  Array counts(DType::i32, {experts});
  for (int64_t i = 0; i < picks.size(); ++i) {
    const int64_t e = static_cast<int64_t>(picks.get(i));
    counts.set(e, counts.get(e) + 1);
  }
  return counts;
}

struct Plan {
  Array start, rows, slot, token_of, gate_of;
  Plan(const Shape& s, int64_t R)
      : start(poisoned(DType::i32, {s.E})),
        rows(poisoned(DType::i32, {s.E})),
        slot(poisoned(DType::i32, {s.N, s.k})),
        token_of(poisoned(DType::i32, {R})),
        gate_of(poisoned(DType::f32, {R})) {}
};

TEST(CudaRoutePlan, IsItsTwinBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(24);
  const Shape shapes[] = {{1, 0, 4, 1},    {127, 0, 8, 1},  {128, 0, 8, 1},    {129, 0, 8, 2},   {1024, 0, 8, 1},
                          {1025, 0, 8, 3}, {5000, 0, 8, 2}, {3000, 0, 128, 8}, {40000, 0, 64, 1}};
  for (const Shape& s : shapes) {
    for (int everything_to : {-1, 0, 3}) {
      for (int64_t alignment : {1, 128}) {
        for (bool fixed : {false, true}) {
          if (fixed && s.N * s.E > 1'000'000) continue;
          const std::string what = std::to_string(s.N) + " x " + std::to_string(s.k) + " to " + std::to_string(s.E) +
                                   ", alignment " + std::to_string(alignment) + (fixed ? ", capacity" : "") +
                                   ", all to " + std::to_string(everything_to);
          const int64_t capacity = fixed ? s.N : 0, slots = (s.N + alignment - 1) / alignment * alignment;
          const int64_t R = fixed ? s.E * slots : s.N * s.k + s.E * (alignment - 1) + 5;
          const Array picks = distinct_picks(random, s, everything_to);
          const Array weights = random_array(random, DType::f32, {s.N, s.k});
          const Array counts = counts_of(picks, s.E);
          Plan want(s, R);
          const Mirror mpicks(picks), mcounts(counts), mweights(weights), start(want.start), rows(want.rows),
              slot(want.slot), token_of(want.token_of), gate_of(want.gate_of);
          cuda::route_plan(nullptr,
                           {mpicks, mcounts, mweights, capacity, start, rows, slot, token_of, gate_of, alignment},
                           workspace());
          cpu::route_plan({picks, counts, weights, capacity, want.start, want.rows, want.slot, want.token_of,
                           want.gate_of, alignment});
          for (int64_t e = 0; e < s.E; ++e) ASSERT_EQ(std::fmod(want.start.get(e), alignment), 0) << what;
          expect_same("start " + what, start.back(), want.start);
          expect_same("rows " + what, rows.back(), want.rows);
          expect_same("slot " + what, slot.back(), want.slot);
          expect_same("token_of " + what, token_of.back(), want.token_of);
          expect_same("gate_of " + what, gate_of.back(), want.gate_of);
        }
      }
    }
  }
}

TEST(CudaRoutePlan, KeepsExpertsBeyondCapacityInsideTheBufferAsItsTwinDoes) {
  ASSAY_NEEDS_GPU();
  Random random(26);
  for (const Shape& s : {Shape{10, 0, 4, 1}, Shape{3000, 0, 8, 2}, Shape{1025, 0, 8, 1}}) {
    for (int64_t capacity : {int64_t{1}, s.N / 8, s.N / 2}) {
      for (int64_t alignment : {1, 128}) {
        const int64_t room = (std::max<int64_t>(1, capacity) + alignment - 1) / alignment * alignment, R = s.E * room;
        const Array picks = distinct_picks(random, s, 1), weights = random_array(random, DType::f32, {s.N, s.k});
        const Array counts = counts_of(picks, s.E);
        Plan want(s, R);
        const Mirror mpicks(picks), mcounts(counts), mweights(weights), start(want.start), rows(want.rows),
            slot(want.slot), token_of(want.token_of), gate_of(want.gate_of);
        const int64_t used = std::max<int64_t>(1, capacity);
        cuda::route_plan(nullptr, {mpicks, mcounts, mweights, used, start, rows, slot, token_of, gate_of, alignment},
                         workspace());
        cpu::route_plan(
            {picks, counts, weights, used, want.start, want.rows, want.slot, want.token_of, want.gate_of, alignment});
        const std::string what = std::to_string(s.N) + " tokens, capacity " + std::to_string(used);
        for (int64_t i = 0; i < picks.size(); ++i) ASSERT_LT(want.slot.get(i), R) << what;
        expect_same("slot " + what, slot.back(), want.slot);
        expect_same("token_of " + what, token_of.back(), want.token_of);
        expect_same("gate_of " + what, gate_of.back(), want.gate_of);
      }
    }
  }
}

TEST(CudaRouterBias, IsItsTwinBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(25);
  for (int64_t E : {1, 8, 256}) {
    Array bias = random_array(random, DType::f32, {E}), total = random_integers(random, {E}, 5, 9);
    const Mirror dbias(bias), dtotal(total);
    cuda::router_bias_update(nullptr, {dbias, dtotal, 0.001f});
    cpu::router_bias_update({bias, total, 0.001f});
    expect_same(std::to_string(E) + " experts", dbias.back(), bias);
  }
}

TEST(CudaRouter, RefusesWhatItCannotDo) {
  ASSAY_NEEDS_GPU();
  const Shape s{2, 8, 300, 2};
  EXPECT_NE(error_of([&] {
              route_on_device(Array(DType::f32, {2, 8}), Array(DType::f32, {300, 8}), Array(DType::f32, {300}), s);
            }).find("model.experts = 300; the cuda backend takes at most 128"),
            std::string::npos);
  const Mirror ints(Array(DType::i32, {4, 1})), floats(Array(DType::f32, {4, 1}));
  EXPECT_NE(error_of([&] {
              cuda::route_plan(nullptr, {ints, ints, floats, 0, ints, ints, ints, ints, floats, 128}, workspace());
            }).find("token_of has 4 rows, needs 512"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
