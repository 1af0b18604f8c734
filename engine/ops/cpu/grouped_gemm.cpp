#include "engine/ops/grouped_gemm.h"

#include <cmath>

#include "engine/ops/cpu/fp8.h"
#include "engine/ops/cpu/matmul.h"
#include "engine/ops/cpu/rows.h"
#include "engine/ops/reduce.h"

namespace assay::cpu {
namespace {

// R rows of the buffer, E groups, N output columns, K summed.
struct Shape {
  int64_t R, E, N, K;
};
struct Rows {
  int64_t first, count;
};

bool gives_codes(const GroupedGemmArgs& g) {
  return g.out8 || g.out8t;
}

// All rows are one group where there are no offsets.
Rows rows_of(const Groups& groups, int64_t group, int64_t R) {
  if (groups.start == nullptr) return {0, R};
  return {groups.start[group], groups.rows[group]};
}

template <class A>
void relu2_rows(A* product, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; ++i) product[i] = product[i] < 0 ? A(0) : product[i] * product[i];
}

// h of row r, widened: from `hidden`, or code * scale.
template <class S>
const Acc<S>* hidden_row(const GroupedGemmArgs& g, int64_t r, int64_t N) {
  Acc<S>* to = scratch<Acc<S>>(Slot::row, N);
  if (g.hidden) {
    const S* from = g.hidden.as<S>() + r * N;
    for (int64_t j = 0; j < N; ++j) to[j] = load(from[j]);
  } else {
    const uint8_t* codes = g.hidden8.codes.as<uint8_t>() + r * N;
    const auto& values = g.hidden8.codes.dtype == DType::fp8_e4m3 ? lowp_detail::e4m3_values : lowp_detail::e5m2_values;
    const float scale = g.hidden8.scales.as<float>()[0];
    for (int64_t j = 0; j < N; ++j) to[j] = values[codes[j]] * scale;
  }
  return to;
}

template <class S>
void relu2_grad_rows(Acc<S>* product, Rows rows, int64_t N, const GroupedGemmArgs& g) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows.count; ++r) {
    A* u = product + r * N;
    const A* h = hidden_row<S>(g, rows.first + r, N);
    if (g.gate) g.gate_grad.as<A>()[rows.first + r] = ungated(row_dot(u, h, N), g.gate.as<A>()[rows.first + r]);
#pragma omp simd
    for (int64_t j = 0; j < N; ++j) u[j] *= A(2) * std::sqrt(h[j]);
  }
}

// The group's rows after the epilogue, [rows, N] in FP32 (f64); the memory is the product slot's.
template <class S>
Acc<S>* finished_rows(const GroupedGemmArgs& g, const Shape& s, Rows rows, int64_t group) {
  using A = Acc<S>;
  A* product = scratch<A>(Slot::product, rows.count * s.N);
  if (g.x8) {
    if constexpr (std::is_same_v<A, float>)
      fp8_product(g.x8, rows.first, rows.count, g.w8.slice(group), s.N, s.K, product);
  } else {
    const A* x = widen<S>(g.x.slice(rows.first, rows.count), Slot::operand_a);
    const A* w = widen<S>(g.w.slice(group, 1), Slot::operand_b);
    matmul({rows.count, s.N, s.K, false, !g.transpose_w, s.K, g.transpose_w ? s.N : s.K, s.N}, A(1), x, w, A(0),
           product);
  }
  if (g.epilogue == GroupedEpilogue::relu2) relu2_rows(product, rows.count * s.N);
  if (g.epilogue == GroupedEpilogue::relu2_grad) relu2_grad_rows<S>(product, rows, s.N, g);
  return product;
}

// Calls f(rows of the group, their finished values) for every group that has any.
template <class S, class F>
void for_each_group(const GroupedGemmArgs& g, const Shape& s, F&& f) {
  for (int64_t e = 0; e < s.E; ++e) {
    const Rows rows = rows_of(g.groups, e, s.R);
    if (rows.count > 0) f(rows, finished_rows<S>(g, s, rows, e));
  }
}

template <class S>
void store_values(const GroupedGemmArgs& g, const Shape& s) {
  for_each_group<S>(g, s, [&](Rows rows, const Acc<S>* values) {
    S* to = g.out.as<S>() + rows.first * s.N;
    const int64_t n = rows.count * s.N;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; ++i) store(to[i], values[i]);
  });
}

void store_codes(const GroupedGemmArgs& g, const Shape& s, Rows rows, const float* values, float inverse) {
  const DType format = (g.out8 ? g.out8 : g.out8t).codes.dtype;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows.count; ++r) {
    uint8_t* codes = scratch<uint8_t>(Slot::row, s.N);
    encode(values + r * s.N, s.N, inverse, format, codes);
    if (g.out8) std::copy(codes, codes + s.N, g.out8.codes.as<uint8_t>() + (rows.first + r) * s.N);
    if (!g.out8t) continue;
    uint8_t* column = g.out8t.codes.as<uint8_t>() + rows.first + r;
    for (int64_t j = 0; j < s.N; ++j) column[j * s.R] = codes[j];
  }
}

template <class S>
float amax_of_groups(const GroupedGemmArgs& g, const Shape& s) {
  float amax = 0;
  for_each_group<S>(g, s, [&](Rows rows, const float* values) {
    amax = std::bit_cast<float>(std::max(magnitude(amax), magnitude(amax_of(values, s.N, rows.count, s.N))));
  });
  return amax;
}

// S: what `hidden` is stored in.
template <class S>
void store_quantized(const GroupedGemmArgs& g, const Shape& s) {
  const Quantized& any = g.out8 ? g.out8 : g.out8t;
  float scale = *g.out8_scale.scale, amax = 0;
  if (!(scale > 0)) scale = g.calibrate ? scale_of(amax_of_groups<S>(g, s), fp8_max(any.codes.dtype)) : 1.0f;
  for_each_group<S>(g, s, [&](Rows rows, const float* values) {
    amax = std::bit_cast<float>(std::max(magnitude(amax), magnitude(amax_of(values, s.N, rows.count, s.N))));
    store_codes(g, s, rows, values, 1.0f / scale);
  });
  *g.out8_scale.amax = std::bit_cast<float>(std::max(magnitude(*g.out8_scale.amax), magnitude(amax)));
  if (g.out8) g.out8.scales.as<float>()[0] = scale;
  if (g.out8t) g.out8t.scales.as<float>()[0] = scale;
}

void check_groups(const char* op, const Groups& groups, int64_t experts, int64_t buffer_rows) {
  if (groups.start == nullptr) {
    ASSAY_OP_CHECK(op, experts == 1, "one group of all rows, but " + std::to_string(experts) + " experts");
    return;
  }
  ASSAY_OP_CHECK(op, groups.count == experts && groups.rows != nullptr,
                 std::to_string(groups.count) + " groups for " + std::to_string(experts) + " experts");
  for (int g = 0; g < groups.count; ++g) {
    const int64_t start = groups.start[g], rows = groups.rows[g];
    ASSAY_OP_CHECK(op, start >= 0 && rows >= 0 && (rows == 0 || start + rows <= buffer_rows),
                   "group " + std::to_string(g) + " is rows [" + std::to_string(start) + ", +" + std::to_string(rows) +
                       ") of a buffer of " + std::to_string(buffer_rows));
  }
}

void check_tensorwise(const char* op, const char* name, const Quantized& q, int64_t rows, int64_t cols) {
  check_quantized(op, name, q, 1, rows, cols);
  ASSAY_OP_CHECK(op, q.mode == ScaleMode::tensorwise,
                 std::string(name) + " must be tensorwise, not " + to_string(q.mode));
}

// dtype: of `hidden` and of the operands that are not FP8.
void check_product(const GroupedGemmArgs& g, const Shape& s, DType dtype) {
  const char* op = "grouped_gemm";
  ASSAY_OP_CHECK(op, s.K > 0, "operands have no columns");
  if (g.x8) {
    check_quantized(op, "x8", g.x8, 1, s.R, s.K);
    check_quantized(op, "w8", g.w8, s.E, s.N, s.K);
    ASSAY_OP_CHECK(op, g.out.dtype != DType::f64, "out is " + g.out.describe() + " with FP8 operands");
  } else {
    check_tensor(op, "x", g.x, dtype, {s.R, s.K});
    check_tensor(op, "w", g.w, dtype, {s.E * s.N * s.K});
  }
  ASSAY_OP_CHECK(op, static_cast<bool>(g.out) != gives_codes(g), "the result goes to out, or to out8 and out8t");
  if (g.out) check_tensor(op, "out", g.out, dtype, {s.R, s.N});
  if (g.out8) check_tensorwise(op, "out8", g.out8, s.R, s.N);
  if (g.out8t) check_tensorwise(op, "out8t", g.out8t, s.N, s.R);
  if (gives_codes(g)) {
    ASSAY_OP_CHECK(op, !g.out8 || !g.out8t || g.out8.codes.dtype == g.out8t.codes.dtype,
                   "out8t " + g.out8t.codes.describe() + " is not a copy of out8 " + g.out8.codes.describe());
    ASSAY_OP_CHECK(op, g.out8_scale.scale != nullptr && g.out8_scale.amax != nullptr && dtype != DType::f64,
                   "FP8 outputs need out8_scale and are made in FP32");
  }
}

void check_relu2_grad(const GroupedGemmArgs& g, const Shape& s, DType dtype) {
  const char* op = "grouped_gemm";
  ASSAY_OP_CHECK(op, static_cast<bool>(g.hidden) != static_cast<bool>(g.hidden8), "needs hidden or hidden8");
  if (g.hidden) check_tensor(op, "hidden", g.hidden, dtype, {s.R, s.N});
  if (g.hidden8) check_tensorwise(op, "hidden8", g.hidden8, s.R, s.N);
  ASSAY_OP_CHECK(op, static_cast<bool>(g.gate) == static_cast<bool>(g.gate_grad),
                 "gate and gate_grad go together, got " + g.gate.describe() + " and " + g.gate_grad.describe());
  if (!g.gate) return;
  check_tensor(op, "gate", g.gate, stat_dtype(dtype), {s.R});
  check_tensor(op, "gate_grad", g.gate_grad, stat_dtype(dtype), {s.R});
}

// What values are stored in where they are not FP8.
DType value_dtype(const GroupedGemmArgs& g) {
  if (g.out) return g.out.dtype;
  if (g.hidden) return g.hidden.dtype;
  return g.x ? g.x.dtype : DType::f32;
}

template <class S>
void wgrad_body(const GroupedWgradArgs& g, const Shape& s) {
  using A = Acc<S>;
  for (int64_t e = 0; e < s.E; ++e) {
    const Rows rows = rows_of(g.groups, e, s.R);
    if (rows.count == 0) continue;
    const A* dy = widen<S>(g.dy.slice(rows.first, rows.count), Slot::operand_a);
    const A* x = widen<S>(g.x.slice(rows.first, rows.count), Slot::operand_b);
    matmul({s.N, s.K, rows.count, true, false, s.N, s.K, s.K}, A(1), dy, x, A(1), g.dw.as<A>() + e * s.N * s.K);
  }
}

void wgrad_fp8(const GroupedWgradArgs& g, const Shape& s) {
  const float scale = g.dy8t.scales.as<float>()[0] * g.x8t.scales.as<float>()[0];
  const float* dy = widen_to_float(g.dy8t.codes, Slot::operand_a);
  const float* x = widen_to_float(g.x8t.codes, Slot::operand_b);
  for (int64_t e = 0; e < s.E; ++e) {
    const Rows rows = rows_of(g.groups, e, s.R);
    if (rows.count == 0) continue;
    matmul({s.N, s.K, rows.count, false, true, s.R, s.R, s.K}, scale, dy + rows.first, x + rows.first, 1.0f,
           g.dw.as<float>() + e * s.N * s.K);
  }
}

}  // namespace

void grouped_gemm(const GroupedGemmArgs& g) {
  const char* op = "grouped_gemm";
  const Tensor& x = g.x8 ? g.x8.codes : g.x;
  const Tensor& w = g.x8 ? g.w8.codes : g.w;
  ASSAY_OP_CHECK(op, x.rank == 2 && w.rank == 3,
                 "x " + x.describe() + ", w " + w.describe() + " are not [R, K] and [E, ., .]");
  const bool transposed = g.transpose_w && !g.x8;
  const Shape s{x.dim(0), w.dim(0), w.dim(transposed ? 2 : 1), w.dim(transposed ? 1 : 2)};
  const DType dtype = value_dtype(g);
  check_product(g, s, dtype);
  if (g.epilogue == GroupedEpilogue::relu2_grad) check_relu2_grad(g, s, dtype);
  check_groups(op, g.groups, s.E, s.R);
  dispatch(op, dtype, [&]<class S>(S) {
    if constexpr (!std::is_same_v<S, double>) {
      if (gives_codes(g)) return store_quantized<S>(g, s);
    }
    store_values<S>(g, s);
  });
}

void grouped_wgrad(const GroupedWgradArgs& g) {
  const char* op = "grouped_wgrad";
  const Tensor& dy = g.dy8t ? g.dy8t.codes : g.dy;
  ASSAY_OP_CHECK(op, dy.rank == 2 && g.dw.rank == 3,
                 "dy " + dy.describe() + ", dw " + g.dw.describe() + " are not of rank 2 and [E, N, K]");
  const Shape s{dy.dim(g.dy8t ? 1 : 0), g.dw.dim(0), g.dw.dim(1), g.dw.dim(2)};
  check_tensor(op, "dw", g.dw, stat_dtype(dy.dtype), {s.E * s.N, s.K});
  check_groups(op, g.groups, s.E, s.R);
  if (g.dy8t) {
    check_tensorwise(op, "dy8t", g.dy8t, s.N, s.R);
    check_tensorwise(op, "x8t", g.x8t, s.K, s.R);
  } else {
    check_tensor(op, "dy", g.dy, dy.dtype, {s.R, s.N});
    check_tensor(op, "x", g.x, dy.dtype, {s.R, s.K});
  }
  if (!g.accumulate) fill_zero({g.dw});
  if (g.dy8t) return wgrad_fp8(g, s);
  dispatch(op, dy.dtype, [&]<class S>(S) { wgrad_body<S>(g, s); });
}

}  // namespace assay::cpu
