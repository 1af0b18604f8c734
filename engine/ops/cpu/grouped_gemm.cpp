#include "engine/ops/grouped_gemm.h"

#include <cmath>

#include "engine/ops/cpu/matmul.h"
#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

// Rows [first, first + rows) of the permuted buffer, N output columns, K summed.
struct GroupShape {
  int64_t first, rows, N, K;
};

template <class S>
void store_none(const Acc<S>* product, const GroupShape& s, const Tensor& out) {
  S* to = out.as<S>() + s.first * s.N;
  const int64_t n = s.rows * s.N;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; ++i) store(to[i], product[i]);
}

template <class S>
void store_relu2(const Acc<S>* product, const GroupShape& s, const Tensor& out) {
  S* to = out.as<S>() + s.first * s.N;
  const int64_t n = s.rows * s.N;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; ++i) store(to[i], product[i] < 0 ? Acc<S>(0) : product[i] * product[i]);
}

template <class S>
void store_relu2_grad(const Acc<S>* product, const GroupShape& s, const GroupedGemmArgs& g) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < s.rows; ++r) {
    const A* u = product + r * s.N;
    S* out = g.out.as<S>() + (s.first + r) * s.N;
    S* hidden = g.hidden.as<S>() + (s.first + r) * s.N;
    const A gate = g.gate.as<A>()[s.first + r];
    g.gate_grad.as<A>()[s.first + r] = row_dot(u, hidden, s.N);
#pragma omp simd
    for (int64_t j = 0; j < s.N; ++j) {
      const A h = load(hidden[j]);
      store(out[j], gate * u[j] * (A(2) * std::sqrt(h)));
      store(hidden[j], gate * h);
    }
  }
}

template <class S>
void run_group(const GroupedGemmArgs& g, const GroupShape& s, int group) {
  using A = Acc<S>;
  A* product = scratch<A>(Slot::product, s.rows * s.N);
  if (g.x8) {
    if constexpr (std::is_same_v<A, float>) fp8_product(g.x8, s.first, s.rows, g.w8.slice(group), s.N, s.K, product);
  } else {
    const A* x = widen<S>(g.x.slice(s.first, s.rows), Slot::operand_a);
    const A* w = widen<S>(g.w.slice(group, 1), Slot::operand_b);
    matmul({s.rows, s.N, s.K, false, !g.transpose_w, s.K, g.transpose_w ? s.N : s.K, s.N}, A(1), x, w, A(0), product);
  }
  switch (g.epilogue) {
    case GroupedEpilogue::none:
      return store_none<S>(product, s, g.out);
    case GroupedEpilogue::relu2:
      return store_relu2<S>(product, s, g.out);
    case GroupedEpilogue::relu2_grad:
      return store_relu2_grad<S>(product, s, g);
  }
}

void check_groups(const char* op, const Groups& groups, int64_t experts, int64_t buffer_rows) {
  ASSAY_OP_CHECK(op, groups.count == experts && groups.start != nullptr && groups.rows != nullptr,
                 std::to_string(groups.count) + " groups for " + std::to_string(experts) + " experts");
  for (int g = 0; g < groups.count; ++g) {
    const int64_t start = groups.start[g], rows = groups.rows[g];
    ASSAY_OP_CHECK(op, start >= 0 && rows >= 0 && (rows == 0 || start + rows <= buffer_rows),
                   "group " + std::to_string(g) + " is rows [" + std::to_string(start) + ", +" + std::to_string(rows) +
                       ") of a buffer of " + std::to_string(buffer_rows));
  }
}

void check_product(const GroupedGemmArgs& g, int64_t R, int64_t E, int64_t N, int64_t K) {
  const char* op = "grouped_gemm";
  ASSAY_OP_CHECK(op, K > 0, "operands have no columns");
  if (g.x8) {
    check_quantized(op, "x8", g.x8, 1, R, K);
    check_quantized(op, "w8", g.w8, E, N, K);
    ASSAY_OP_CHECK(op, g.out.dtype != DType::f64, "out is " + g.out.describe() + " with FP8 operands");
  } else {
    check_tensor(op, "x", g.x, g.out.dtype, {R, K});
    check_tensor(op, "w", g.w, g.out.dtype, {E * N * K});
  }
  check_tensor(op, "out", g.out, g.out.dtype, {R, N});
  if (g.epilogue != GroupedEpilogue::relu2_grad) return;
  check_tensor(op, "hidden", g.hidden, g.out.dtype, {R, N});
  check_tensor(op, "gate", g.gate, stat_dtype(g.out.dtype), {R});
  check_tensor(op, "gate_grad", g.gate_grad, stat_dtype(g.out.dtype), {R});
}

template <class S>
void wgrad_body(const GroupedWgradArgs& g, int64_t N, int64_t K) {
  using A = Acc<S>;
  for (int e = 0; e < g.groups.count; ++e) {
    const int64_t first = g.groups.start[e], rows = g.groups.rows[e];
    if (rows == 0) continue;
    const A* dy = widen<S>(g.dy.slice(first, rows), Slot::operand_a);
    const A* x = widen<S>(g.x.slice(first, rows), Slot::operand_b);
    matmul({N, K, rows, true, false, N, K, K}, A(1), dy, x, A(1), g.dw.as<A>() + e * N * K);
  }
}

void wgrad_fp8(const GroupedWgradArgs& g, int64_t N, int64_t K) {
  const float scale = g.dy8.scales.as<float>()[0] * g.x8.scales.as<float>()[0];
  for (int e = 0; e < g.groups.count; ++e) {
    const int64_t first = g.groups.start[e], rows = g.groups.rows[e];
    if (rows == 0) continue;
    const float* dy = widen_to_float(g.dy8.codes.slice(first, rows), Slot::operand_a);
    const float* x = widen_to_float(g.x8.codes.slice(first, rows), Slot::operand_b);
    matmul({N, K, rows, true, false, N, K, K}, scale, dy, x, 1.0f, g.dw.as<float>() + e * N * K);
  }
}

}  // namespace

void grouped_gemm(const GroupedGemmArgs& g) {
  const char* op = "grouped_gemm";
  const Tensor& x = g.x8 ? g.x8.codes : g.x;
  const Tensor& w = g.x8 ? g.w8.codes : g.w;
  ASSAY_OP_CHECK(
      op, x.rank == 2 && w.rank == 3 && g.out.rank == 2,
      "x " + x.describe() + ", w " + w.describe() + ", out " + g.out.describe() + " are not [R, K], [E, ., .], [R, N]");
  const bool transposed = g.transpose_w && !g.x8;
  const int64_t R = x.dim(0), E = w.dim(0), N = w.dim(transposed ? 2 : 1), K = w.dim(transposed ? 1 : 2);
  check_product(g, R, E, N, K);
  check_groups(op, g.groups, E, R);
  dispatch(op, g.out.dtype, [&]<class S>(S) {
    for (int e = 0; e < g.groups.count; ++e) {
      const GroupShape s{g.groups.start[e], g.groups.rows[e], N, K};
      if (s.rows > 0) run_group<S>(g, s, e);
    }
  });
}

void grouped_wgrad(const GroupedWgradArgs& g) {
  const char* op = "grouped_wgrad";
  const Tensor& dy = g.dy8 ? g.dy8.codes : g.dy;
  const Tensor& x = g.dy8 ? g.x8.codes : g.x;
  ASSAY_OP_CHECK(
      op, dy.rank == 2 && x.rank == 2 && dy.dim(0) == x.dim(0) && g.dw.rank == 3,
      "dy " + dy.describe() + ", x " + x.describe() + ", dw " + g.dw.describe() + " are not [R, N], [R, K], [E, N, K]");
  const int64_t R = dy.dim(0), N = dy.dim(1), K = x.dim(1), E = g.dw.dim(0);
  check_tensor(op, "dw", g.dw, stat_dtype(dy.dtype), {E * N, K});
  check_groups(op, g.groups, E, R);
  if (g.dy8) {
    check_quantized(op, "dy8", g.dy8, 1, R, N);
    check_quantized(op, "x8", g.x8, 1, R, K);
    ASSAY_OP_CHECK(
        op, g.dy8.mode == ScaleMode::tensorwise && g.x8.mode == ScaleMode::tensorwise,
        std::string("FP8 operands must be tensorwise, not ") + to_string(g.dy8.mode) + " and " + to_string(g.x8.mode));
    return wgrad_fp8(g, N, K);
  }
  check_tensor(op, "x", g.x, dy.dtype, {R, K});
  dispatch(op, dy.dtype, [&]<class S>(S) { wgrad_body<S>(g, N, K); });
}

}  // namespace assay::cpu
