#include "engine/ops/rope.h"

#include <cmath>

#include "engine/ops/cpu/rows.h"
#include "engine/ops/gemm.h"
#include "engine/ops/norm.h"

namespace assay {

void rope_table(double base, Tensor cos, Tensor sin) {
  ASSAY_OP_CHECK("rope_table", cos && cos.rank == 2 && (cos.dtype == DType::f32 || cos.dtype == DType::f64),
                 "cos is " + cos.describe() + ", expected f32 or f64 [T, D/2]");
  cpu::check_tensor("rope_table", "sin", sin, cos.dtype, {cos.dim(0), cos.dim(1)});
  const int64_t half = cos.dim(1);
  for (int64_t t = 0; t < cos.dim(0); ++t) {
    for (int64_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(t) * std::pow(base, -static_cast<double>(j) / static_cast<double>(half));
      const int64_t at = t * half + j;
      if (cos.dtype == DType::f64) {
        cos.as<double>()[at] = std::cos(angle);
        sin.as<double>()[at] = std::sin(angle);
      } else {
        cos.as<float>()[at] = static_cast<float>(std::cos(angle));
        sin.as<float>()[at] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

namespace cpu {
namespace {

constexpr int64_t gate_columns = 12;  // leading columns of n that drive the value-embedding gate

struct Shape {
  int64_t N, H, D, d;  // d: width of n, 0 without value embeddings
};

template <class A>
A sigmoid(A x) {
  return A(1) / (A(1) + std::exp(-x));
}

template <class S>
Acc<S> gate_logit(const S* n, const Acc<S>* gate_w) {
  Acc<S> sum = 0;
  for (int64_t c = 0; c < gate_columns; ++c) sum += load(n[c]) * gate_w[c];
  return sum;
}

template <class S>
void rotate_and_norm(S* x, const Acc<S>* cos, const Acc<S>* sin, int64_t D, Acc<S>& rstd_out) {
  using A = Acc<S>;
  const int64_t half = D / 2;
  A* y = scratch<A>(Slot::row, D);
#pragma omp simd
  for (int64_t j = 0; j < half; ++j) {
    const A x1 = load(x[j]), x2 = load(x[j + half]);
    y[j] = x1 * cos[j] + x2 * sin[j];
    y[j + half] = -x1 * sin[j] + x2 * cos[j];
  }
  rstd_out = row_rstd(y, D, A(rms_eps));
  store_scaled(y, rstd_out, x, D);
}

template <class S>
void rotate_and_norm_grad(S* dy, const S* y, const Acc<S>* cos, const Acc<S>* sin, int64_t D, Acc<S> rstd) {
  using A = Acc<S>;
  const int64_t half = D / 2;
  const A mean = row_dot(dy, y, D) / A(D);
#pragma omp simd
  for (int64_t j = 0; j < half; ++j) {
    const A g1 = rstd * (load(dy[j]) - load(y[j]) * mean);
    const A g2 = rstd * (load(dy[j + half]) - load(y[j + half]) * mean);
    store(dy[j], g1 * cos[j] - g2 * sin[j]);
    store(dy[j + half], g1 * sin[j] + g2 * cos[j]);
  }
}

template <class S>
void forward(const QkNormRopeArgs& a, const Shape& s) {
  using A = Acc<S>;
  const int64_t half = s.D / 2;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s.N; ++i) {
    S* row = a.qkv.as<S>() + i * 3 * s.H * s.D;
    const A* cos = a.cos.as<A>() + (i % a.T) * half;
    const A* sin = a.sin.as<A>() + (i % a.T) * half;
    A* rstd = a.rstd.as<A>() + i * 2 * s.H;
    for (int64_t h = 0; h < 2 * s.H; ++h) rotate_and_norm(row + h * s.D, cos, sin, s.D, rstd[h]);
    if (!a.ve_table) continue;
    const A* ve = a.ve_table.as<A>() + a.tokens.as<int32_t>()[i] * s.H * s.D;
    for (int64_t h = 0; h < s.H; ++h) {
      const A gate = A(3) * sigmoid(gate_logit(a.n.as<S>() + i * s.d, a.gate_w.as<A>() + h * gate_columns));
      S* v = row + (2 * s.H + h) * s.D;
#pragma omp simd
      for (int64_t j = 0; j < s.D; ++j) {
        S rounded;
        store(rounded, ve[h * s.D + j]);
        store(v[j], load(v[j]) + gate * load(rounded));
      }
    }
  }
}

// The gate's gradients. gates, dlogits: [N, H] out. Adds the gate's part to dn.
template <class S>
void gate_grads(const QkNormRopeGradArgs& a, const Shape& s, Acc<S>* gates, Acc<S>* dlogits) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s.N; ++i) {
    const S* n = a.n.as<S>() + i * s.d;
    A dn[gate_columns] = {};
    for (int64_t h = 0; h < s.H; ++h) {
      const A* gate_w = a.gate_w.as<A>() + h * gate_columns;
      const A p = sigmoid(gate_logit(n, gate_w));
      const A* ve = a.ve_table.as<A>() + (a.tokens.as<int32_t>()[i] * s.H + h) * s.D;
      const S* dv = a.dqkv.as<S>() + ((i * 3 + 2) * s.H + h) * s.D;
      S* rounded = scratch<S>(Slot::row, s.D);
      for (int64_t j = 0; j < s.D; ++j) store(rounded[j], ve[j]);
      const A dlogit = A(3) * row_dot(dv, rounded, s.D) * p * (A(1) - p);
      gates[i * s.H + h] = A(3) * p;
      dlogits[i * s.H + h] = dlogit;
      for (int64_t c = 0; c < gate_columns; ++c) dn[c] += dlogit * gate_w[c];
    }
    S* to = a.dn.as<S>() + i * s.d;
    for (int64_t c = 0; c < gate_columns; ++c) store(to[c], load(to[c]) + dn[c]);
  }
}

template <class S>
void value_embedding_grad(const QkNormRopeGradArgs& a, const Shape& s) {
  using A = Acc<S>;
  A* gates = scratch<A>(Slot::s0, s.N * s.H);
  A* dlogits = scratch<A>(Slot::s1, s.N * s.H);
  gate_grads<S>(a, s, gates, dlogits);
  // One head per task: its columns of the table and its row of gate_w belong to no other, and rows come in order.
#pragma omp parallel for schedule(static)
  for (int64_t h = 0; h < s.H; ++h) {
    A sums[gate_columns] = {};
    for (int64_t i = 0; i < s.N; ++i) {
      const S* n = a.n.as<S>() + i * s.d;
      for (int64_t c = 0; c < gate_columns; ++c) sums[c] += dlogits[i * s.H + h] * load(n[c]);
      const A gate = gates[i * s.H + h];
      const S* dv = a.dqkv.as<S>() + ((i * 3 + 2) * s.H + h) * s.D;
      A* to = a.ve_table_grad.as<A>() + (a.tokens.as<int32_t>()[i] * s.H + h) * s.D;
#pragma omp simd
      for (int64_t j = 0; j < s.D; ++j) to[j] += gate * load(dv[j]);
    }
    for (int64_t c = 0; c < gate_columns; ++c) a.gate_w_grad.as<A>()[h * gate_columns + c] += sums[c];
  }
}

template <class S>
void backward(const QkNormRopeGradArgs& a, const Shape& s) {
  using A = Acc<S>;
  const int64_t half = s.D / 2;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s.N; ++i) {
    const int64_t at = i * 3 * s.H * s.D;
    const A* cos = a.cos.as<A>() + (i % a.T) * half;
    const A* sin = a.sin.as<A>() + (i % a.T) * half;
    for (int64_t h = 0; h < 2 * s.H; ++h) {
      rotate_and_norm_grad(a.dqkv.as<S>() + at + h * s.D, a.qkv.as<S>() + at + h * s.D, cos, sin, s.D,
                           a.rstd.as<A>()[i * 2 * s.H + h]);
    }
  }
  if (a.ve_table) value_embedding_grad<S>(a, s);
}

template <class Args>
Shape check(const char* op, const Args& a, const Tensor& packed) {
  ASSAY_OP_CHECK(op, packed && packed.rank == 4 && packed.dim(1) == 3 && packed.dim(3) % 2 == 0 && packed.numel() > 0,
                 "packed projection is " + packed.describe() + ", expected [N, 3, H, D] with D even");
  Shape s{packed.dim(0), packed.dim(2), packed.dim(3), 0};
  const DType stat = stat_dtype(packed.dtype);
  ASSAY_OP_CHECK(op, a.T > 0 && s.N % a.T == 0,
                 std::to_string(s.N) + " rows are not whole sequences of " + std::to_string(a.T));
  check_tensor(op, "cos", a.cos, stat, {a.T, s.D / 2});
  check_tensor(op, "sin", a.sin, stat, {a.T, s.D / 2});
  check_tensor(op, "rstd", a.rstd, stat, {s.N * 2 * s.H});
  if (!a.ve_table) return s;
  check_tensor(op, "tokens", a.tokens, DType::i32, {s.N});
  check_tensor(op, "ve_table", a.ve_table, stat, {a.ve_table.numel() / (s.H * s.D), s.H * s.D});
  check_tensor(op, "gate_w", a.gate_w, stat, {s.H, gate_columns});
  s.d = a.n.numel() / s.N;
  check_tensor(op, "n", a.n, packed.dtype, {s.N, s.d});
  ASSAY_OP_CHECK(op, s.d >= gate_columns, "n is " + a.n.describe() + ", narrower than the gate's 12 columns");
  return s;
}

}  // namespace

void qk_norm_rope(const QkNormRopeArgs& a) {
  const Shape s = check("qk_norm_rope", a, a.qkv);
  dispatch("qk_norm_rope", a.qkv.dtype, [&]<class S>(S) { forward<S>(a, s); });
}

void project_qkv(const ProjectQkvArgs& a) {
  const Shape s = check("project_qkv", a.rope, a.rope.qkv);
  const Tensor out = a.rope.qkv.view({s.N, 3 * s.H * s.D});
  if (a.w8)
    gemm_fp8({.a = a.x8, .b = a.w8, .out = out});
  else
    gemm({.a = a.x, .b = a.w, .out = out});
  qk_norm_rope(a.rope);
}

void qk_norm_rope_grad(const QkNormRopeGradArgs& a) {
  const Shape s = check("qk_norm_rope_grad", a, a.dqkv);
  check_tensor("qk_norm_rope_grad", "qkv", a.qkv, a.dqkv.dtype, {s.N * 3 * s.H, s.D});
  if (a.ve_table) {
    const DType stat = stat_dtype(a.dqkv.dtype);
    check_tensor("qk_norm_rope_grad", "ve_table_grad", a.ve_table_grad, stat,
                 {a.ve_table.numel() / (s.H * s.D), s.H * s.D});
    check_tensor("qk_norm_rope_grad", "gate_w_grad", a.gate_w_grad, stat, {s.H, gate_columns});
    check_tensor("qk_norm_rope_grad", "dn", a.dn, a.dqkv.dtype, {s.N, s.d});
  }
  dispatch("qk_norm_rope_grad", a.dqkv.dtype, [&]<class S>(S) { backward<S>(a, s); });
  if (!a.dqkv8 && !a.dqkv8t) return;
  ASSAY_OP_CHECK("qk_norm_rope_grad", a.dqkv8_scale.scale != nullptr, "FP8 outputs need dqkv8_scale");
  quantize({.x = a.dqkv.view({s.N, 3 * s.H * s.D}),
            .out = a.dqkv8,
            .transposed = a.dqkv8t,
            .delayed = a.dqkv8_scale,
            .calibrate = a.calibrate});
}

}  // namespace cpu
}  // namespace assay
