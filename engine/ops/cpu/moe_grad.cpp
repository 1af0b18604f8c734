#include "engine/ops/moe_grad.h"

#include <limits>

#include "engine/ops/cpu/matmul.h"
#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

struct Shape {
  int64_t N, d, E, k, R;
};

// dlogits [N, E], zero where an expert was not picked.
template <class A>
void logit_grads(const MoeNormGradArgs& a, const Shape& s, A* dlogits) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s.N; ++i) {
    const int32_t* slot = a.slot.as<int32_t>() + i * s.k;
    const A* w = a.weights.as<A>() + i * s.k;
    const A* p = a.probs.as<A>() + i * s.k;
    A sum = 0, mean = 0;
    for (int64_t j = 0; j < s.k; ++j) {
      sum += p[j];
      mean += a.gate_grad.as<A>()[slot[j]] * w[j];
    }
    sum = std::max(sum, std::numeric_limits<A>::min());
    std::fill(dlogits + i * s.E, dlogits + (i + 1) * s.E, A(0));
    for (int64_t j = 0; j < s.k; ++j) {
      const A dw = a.gate_grad.as<A>()[slot[j]];
      dlogits[i * s.E + a.picks.as<int32_t>()[i * s.k + j]] = (dw - mean) / sum * p[j] * (A(1) - p[j]);
    }
  }
}

// dn of token i.
template <class S>
void sum_gradients(const MoeNormGradArgs& a, const Shape& s, const Acc<S>* dlogits, int64_t i, Acc<S>* router,
                   Acc<S>* dn) {
  using A = Acc<S>;
  std::fill(dn, dn + s.d, A(0));
  std::fill(router, router + s.d, A(0));
  for (int64_t j = 0; j < s.k; ++j) {
    const S* row = a.dxg.as<S>() + a.slot.as<int32_t>()[i * s.k + j] * s.d;
    const int32_t e = a.picks.as<int32_t>()[i * s.k + j];
    const A dlogit = dlogits[i * s.E + e];
    const A* w = a.router_w.as<A>() + e * s.d;
#pragma omp simd
    for (int64_t c = 0; c < s.d; ++c) {
      dn[c] += load(row[c]);
      router[c] += dlogit * w[c];
    }
  }
  const S* shared = a.dn_shared.as<S>() + i * s.d;
#pragma omp simd
  for (int64_t c = 0; c < s.d; ++c) dn[c] = dn[c] + load(shared[c]) + router[c];
}

template <class S>
void moe_norm_grad_body(const MoeNormGradArgs& a, const Shape& s) {
  using A = Acc<S>;
  A* dlogits = scratch<A>(Slot::s0, s.N * s.E);
  logit_grads(a, s, dlogits);
  const A* widened = widen<S>(a.n, Slot::operand_a);
  matmul({s.E, s.d, s.N, true, false, s.E, s.d, s.d}, A(1), dlogits, widened, A(1), a.router_w_grad.as<A>());
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s.N; ++i) {
    A* dn = scratch<A>(Slot::row, s.d);
    sum_gradients<S>(a, s, dlogits, i, scratch<A>(Slot::s1, s.d), dn);
    const S* n = a.n.as<S>() + i * s.d;
    S* dx = a.dx.as<S>() + i * s.d;
    const A mean = row_dot(dn, n, s.d) / A(s.d), rstd = a.rstd.as<A>()[i];
#pragma omp simd
    for (int64_t c = 0; c < s.d; ++c) store(dx[c], load(dx[c]) + rstd * (dn[c] - load(n[c]) * mean));
  }
}

void check(const char* op, const MoeNormGradArgs& a, const Shape& s) {
  const DType stat = stat_dtype(a.dx.dtype);
  ASSAY_OP_CHECK(op, s.k >= 1 && s.k <= s.E, "top_k " + std::to_string(s.k) + " of " + std::to_string(s.E));
  check_tensor(op, "dxg", a.dxg, a.dx.dtype, {s.R, s.d});
  check_tensor(op, "slot", a.slot, DType::i32, {s.N, s.k});
  check_tensor(op, "dn_shared", a.dn_shared, a.dx.dtype, {s.N, s.d});
  check_tensor(op, "gate_grad", a.gate_grad, stat, {s.R});
  check_tensor(op, "picks", a.picks, DType::i32, {s.N, s.k});
  check_tensor(op, "probs", a.probs, stat, {s.N, s.k});
  check_tensor(op, "weights", a.weights, stat, {s.N, s.k});
  check_tensor(op, "n", a.n, a.dx.dtype, {s.N, s.d});
  check_tensor(op, "rstd", a.rstd, stat, {s.N});
  check_tensor(op, "router_w", a.router_w, stat, {s.E, s.d});
  check_tensor(op, "router_w_grad", a.router_w_grad, stat, {s.E, s.d});
  for (int64_t i = 0; i < s.N * s.k; ++i) {
    const int32_t row = a.slot.as<int32_t>()[i], e = a.picks.as<int32_t>()[i];
    ASSAY_OP_CHECK(op, row >= 0 && row < s.R && e >= 0 && e < s.E,
                   "slot " + std::to_string(row) + " of " + std::to_string(s.R) + " rows, expert " + std::to_string(e) +
                       " of " + std::to_string(s.E));
  }
}

void quantize_dx(const MoeNormGradArgs& a) {
  if (!a.dx8 && !a.dx8t) return;
  ASSAY_OP_CHECK("moe_norm_grad", a.dx8_scale.scale != nullptr, "FP8 outputs need dx8_scale");
  quantize({.x = a.dx, .out = a.dx8, .transposed = a.dx8t, .delayed = a.dx8_scale, .calibrate = a.calibrate});
}

}  // namespace

void moe_norm_grad(const MoeNormGradArgs& a) {
  const char* op = "moe_norm_grad";
  ASSAY_OP_CHECK(op, a.dxg.rank == 2 && a.slot.rank == 2 && a.router_w.rank == 2 && a.dx.rank == 2,
                 "dxg " + a.dxg.describe() + ", slot " + a.slot.describe() + ", router_w " + a.router_w.describe() +
                     ", dx " + a.dx.describe() + ", all of rank 2");
  const Shape s{a.dx.dim(0), a.dx.dim(1), a.router_w.dim(0), a.slot.dim(1), a.dxg.dim(0)};
  check(op, a, s);
  dispatch(op, a.dx.dtype, [&]<class S>(S) { moe_norm_grad_body<S>(a, s); });
  quantize_dx(a);
  quantize_normed(a.n, {}, a.n8t);
}

}  // namespace assay::cpu
