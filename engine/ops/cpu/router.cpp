#include "engine/ops/router.h"

#include <array>
#include <cmath>
#include <limits>

#include "engine/ops/cpu/rows.h"
#include "engine/ops/norm.h"

namespace assay::cpu {
namespace {

constexpr int64_t max_experts = 1024;  // of the twin's on-stack score row

struct Shape {
  int64_t N, d, E, k;
};

// The k largest of scores, largest first, ties to the lower index. A NaN is never larger, so the picks stay distinct.
template <class A>
void pick_top(const A* scores, int64_t E, int64_t k, int32_t* picks) {
  for (int64_t j = 0; j < k; ++j) {
    int32_t best = -1;
    for (int32_t e = 0; e < E; ++e) {
      if (std::find(picks, picks + j, e) != picks + j) continue;
      if (best < 0 || scores[e] > scores[best]) best = e;
    }
    picks[j] = best;
  }
}

template <class S>
void norm_route_body(const NormRouteArgs& a, const Shape& s) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s.N; ++i) {
    A* row = scratch<A>(Slot::row, s.d);
    for (int64_t j = 0; j < s.d; ++j) row[j] = load(a.x.as<S>()[i * s.d + j]);
    S* n = a.n.as<S>() + i * s.d;
    a.rstd.as<A>()[i] = row_rstd(row, s.d, A(rms_eps));
    store_scaled(row, a.rstd.as<A>()[i], n, s.d);
    A p[max_experts], scores[max_experts];
    for (int64_t e = 0; e < s.E; ++e) {
      const A logit = row_dot(n, a.router_w.as<A>() + e * s.d, s.d);
      p[e] = A(1) / (A(1) + std::exp(-logit));
      scores[e] = p[e] + A(a.bias.as<float>()[e]);
    }
    int32_t* picks = a.picks.as<int32_t>() + i * s.k;
    pick_top(scores, s.E, s.k, picks);
    A sum = 0;
    for (int64_t j = 0; j < s.k; ++j) sum += p[picks[j]];
    sum = std::max(sum, std::numeric_limits<A>::min());
    for (int64_t j = 0; j < s.k; ++j) {
      a.probs.as<A>()[i * s.k + j] = p[picks[j]];
      a.weights.as<A>()[i * s.k + j] = p[picks[j]] / sum;
    }
  }
  int32_t* counts = a.counts.as<int32_t>();
  std::fill(counts, counts + s.E, 0);
  for (int64_t i = 0; i < s.N * s.k; ++i) ++counts[a.picks.as<int32_t>()[i]];
}

int64_t align_up(int64_t x, int64_t alignment) {
  return (x + alignment - 1) / alignment * alignment;
}

template <class A>
void route_plan_body(const RoutePlanArgs& a, const Shape& s, int64_t R) {
  int32_t* start = a.start.as<int32_t>();
  int32_t* rows = a.rows.as<int32_t>();
  std::array<int32_t, max_experts> next{};
  int32_t total = 0;
  for (int64_t e = 0; e < s.E; ++e) {
    const int32_t count = a.counts.as<int32_t>()[e];
    start[e] =
        static_cast<int32_t>(a.capacity > 0 ? e * align_up(a.capacity, a.alignment) : align_up(total, a.alignment));
    rows[e] = a.capacity > 0 ? static_cast<int32_t>(a.capacity) : count;
    next[static_cast<size_t>(e)] = start[e];
    total = start[e] + count;
  }
  std::fill(a.token_of.as<int32_t>(), a.token_of.as<int32_t>() + R, -1);
  std::fill(a.gate_of.as<A>(), a.gate_of.as<A>() + R, A(0));
  for (int64_t i = 0; i < s.N * s.k; ++i) {
    const int32_t e = a.picks.as<int32_t>()[i], row = next[static_cast<size_t>(e)]++;
    const bool fits = a.capacity == 0 || row < start[e] + a.capacity;
    a.slot.as<int32_t>()[i] = fits ? row : static_cast<int32_t>(start[e] + a.capacity - 1);
    if (!fits) continue;
    a.token_of.as<int32_t>()[row] = static_cast<int32_t>(i / s.k);
    a.gate_of.as<A>()[row] = a.weights.as<A>()[i];
  }
}

// Every pick names an expert and the counts are theirs, so the plan below writes inside its buffers.
void check_counts(const RoutePlanArgs& a, const Shape& s, int64_t R) {
  std::array<int32_t, max_experts> counts{};
  for (int64_t i = 0; i < s.N * s.k; ++i) {
    const int32_t e = a.picks.as<int32_t>()[i];
    ASSAY_OP_CHECK("route_plan", e >= 0 && e < s.E,
                   "pick " + std::to_string(e) + " names no expert of " + std::to_string(s.E));
    ++counts[static_cast<size_t>(e)];
  }
  for (int64_t e = 0; e < s.E; ++e) {
    const int32_t count = counts[static_cast<size_t>(e)];
    ASSAY_OP_CHECK("route_plan", count == a.counts.as<int32_t>()[e],
                   "counts[" + std::to_string(e) + "] is not the number of picks, " + std::to_string(count));
  }
  const int64_t needed = a.capacity > 0 ? s.E * align_up(a.capacity, a.alignment) : s.N * s.k + s.E * (a.alignment - 1);
  ASSAY_OP_CHECK("route_plan", R >= needed,
                 "token_of has " + std::to_string(R) + " rows, needs " + std::to_string(needed));
}

void check_experts(const char* op, const Shape& s) {
  ASSAY_OP_CHECK(op, s.k >= 1 && s.k <= s.E && s.E <= max_experts,
                 "top_k " + std::to_string(s.k) + " of " + std::to_string(s.E) + " experts (at most " +
                     std::to_string(max_experts) + ")");
}

}  // namespace

void norm_route(const NormRouteArgs& a) {
  const char* op = "norm_route";
  ASSAY_OP_CHECK(op, a.x.rank == 2 && a.router_w.rank == 2 && a.picks.rank == 2,
                 "x " + a.x.describe() + ", router_w " + a.router_w.describe() + ", picks " + a.picks.describe());
  const Shape s{a.x.dim(0), a.x.dim(1), a.router_w.dim(0), a.picks.dim(1)};
  const DType stat = stat_dtype(a.x.dtype);
  check_experts(op, s);
  check_tensor(op, "router_w", a.router_w, stat, {s.E, s.d});
  check_tensor(op, "bias", a.bias, DType::f32, {s.E});
  check_tensor(op, "n", a.n, a.x.dtype, {s.N, s.d});
  check_tensor(op, "rstd", a.rstd, stat, {s.N});
  check_tensor(op, "picks", a.picks, DType::i32, {s.N, s.k});
  check_tensor(op, "probs", a.probs, stat, {s.N, s.k});
  check_tensor(op, "weights", a.weights, stat, {s.N, s.k});
  check_tensor(op, "counts", a.counts, DType::i32, {s.E});
  dispatch(op, a.x.dtype, [&]<class S>(S) { norm_route_body<S>(a, s); });
  quantize_normed(a.n, a.n8);
}

void route_plan(const RoutePlanArgs& a) {
  const char* op = "route_plan";
  ASSAY_OP_CHECK(op, a.picks.rank == 2 && a.capacity >= 0 && a.alignment >= 1,
                 "picks " + a.picks.describe() + ", expected [N, k]; capacity " + std::to_string(a.capacity) +
                     ", alignment " + std::to_string(a.alignment));
  const Shape s{a.picks.dim(0), 0, a.counts.numel(), a.picks.dim(1)};
  const int64_t R = a.token_of.numel();
  check_experts(op, s);
  check_tensor(op, "picks", a.picks, DType::i32, {s.N, s.k});
  check_tensor(op, "counts", a.counts, DType::i32, {s.E});
  check_tensor(op, "start", a.start, DType::i32, {s.E});
  check_tensor(op, "rows", a.rows, DType::i32, {s.E});
  check_tensor(op, "slot", a.slot, DType::i32, {s.N, s.k});
  check_tensor(op, "token_of", a.token_of, DType::i32, {R});
  check_tensor(op, "weights", a.weights, stat_dtype(a.weights.dtype), {s.N, s.k});
  check_tensor(op, "gate_of", a.gate_of, a.weights.dtype, {R});
  check_counts(a, s, R);
  dispatch(op, a.weights.dtype, [&]<class S>(S) { route_plan_body<Acc<S>>(a, s, R); });
}

void router_bias_update(const RouterBiasArgs& a) {
  const int64_t E = a.bias.numel();
  check_tensor("router_bias_update", "bias", a.bias, DType::f32, {E});
  check_tensor("router_bias_update", "total", a.total, DType::i32, {E});
  if (a.skip != nullptr && *a.skip != 0) return;
  const int32_t* total = a.total.as<int32_t>();
  int64_t sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += total[e];
  for (int64_t e = 0; e < E; ++e) {
    const int64_t excess = total[e] * E - sum;  // sign(mean - total_e), exactly
    a.bias.as<float>()[e] += a.rate * static_cast<float>((excess < 0) - (excess > 0));
  }
}

}  // namespace assay::cpu
