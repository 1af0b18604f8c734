#include "engine/ops/norm.h"

#include <cmath>
#include <vector>

#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

template <class A>
A read_scalar(const Tensor& t) {
  return t.as<A>()[0];
}

// table_grad[tokens[i]] += row(i) with rows of one token in ascending i: threads share the columns, never the order.
template <class A, class RowValue>
void scatter_rows(const int32_t* tokens, int64_t N, int64_t d, A* table_grad, RowValue&& value) {
  constexpr int64_t columns = 64;
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < d; first += columns) {
    const int64_t end = std::min(first + columns, d);
    for (int64_t i = 0; i < N; ++i) {
      A* to = table_grad + tokens[i] * d;
#pragma omp simd
      for (int64_t j = first; j < end; ++j) to[j] += value(i, j);
    }
  }
}

void check_tokens(const char* op, const Tensor& tokens, int64_t N, int64_t vocabulary) {
  check_tensor(op, "tokens", tokens, DType::i32, {N});
  for (int64_t i = 0; i < N; ++i) {
    const int32_t token = tokens.as<int32_t>()[i];
    ASSAY_OP_CHECK(op, token >= 0 && token < vocabulary,
                   "token " + std::to_string(token) + " at row " + std::to_string(i) +
                       " is outside the vocabulary of " + std::to_string(vocabulary));
  }
}

template <class S>
void embed_norm_body(const EmbedNormArgs& a, int64_t N, int64_t d) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < N; ++i) {
    A* row = scratch<A>(Slot::row, d);
    const A* from = a.table.as<A>() + a.tokens.as<int32_t>()[i] * d;
    for (int64_t j = 0; j < d; ++j) {
      S rounded;
      store(rounded, from[j]);
      row[j] = load(rounded);
    }
    const A rstd = row_rstd(row, d, A(rms_eps));
    a.rstd.as<A>()[i] = rstd;
    store_scaled(row, rstd, a.x.as<S>() + i * d, d);
  }
}

template <class S, class G>
void embed_norm_grad_body(const EmbedNormGradArgs& a, int64_t N, int64_t d) {
  using A = Acc<S>;
  const S* x = a.x.as<S>();
  const G* dx = a.dx.as<G>();
  A* mean = scratch<A>(Slot::s0, N);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < N; ++i) mean[i] = row_dot(x + i * d, dx + i * d, d) / A(d);
  const A* rstd = a.rstd.as<A>();
  scatter_rows(a.tokens.as<int32_t>(), N, d, a.table_grad.as<A>(),
               [=](int64_t i, int64_t j) { return rstd[i] * (load(dx[i * d + j]) - load(x[i * d + j]) * mean[i]); });
}

// in[j] of row i and what it still lacks, rounded: combine's arithmetic.
template <class S>
void add_experts(const ExpertSum& a, int64_t i, int64_t d, const S* in, Acc<S>* row) {
  using A = Acc<S>;
  const int64_t k = a.slot.dim(1);
  std::fill(row, row + d, A(0));
  for (int64_t j = 0; j < k; ++j) {
    const A weight = a.weights.as<A>()[i * k + j];
    const S* y = a.y.as<S>() + a.slot.as<int32_t>()[i * k + j] * d;
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) row[c] += weight * load(y[c]);
  }
  const S* shared = a.shared.as<S>() + i * d;
#pragma omp simd
  for (int64_t c = 0; c < d; ++c) {
    S rounded;
    store(rounded, row[c] + load(shared[c]) + load(in[c]));
    row[c] = load(rounded);
  }
}

template <class S>
void mix_norm_body(const MixNormArgs& a, int64_t N, int64_t d) {
  using A = Acc<S>;
  const bool mix = static_cast<bool>(a.resid_lambda);
  const A resid = mix ? read_scalar<A>(a.resid_lambda) : A(1);
  const A skip = mix ? read_scalar<A>(a.x0_lambda) : A(0);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < N; ++i) {
    A* row = scratch<A>(Slot::row, d);
    const S* in = a.x_in.as<S>() + i * d;
    if (a.add) {
      add_experts<S>(a.add, i, d, in, row);
    } else {
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) row[j] = load(in[j]);
    }
    if (mix) {
      const S* x0 = a.x0.as<S>() + i * d;
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) {
        S rounded;
        store(rounded, resid * row[j] + skip * load(x0[j]));
        row[j] = load(rounded);
      }
    }
    if (a.x) store_scaled(row, A(1), a.x.as<S>() + i * d, d);
    const A rstd = row_rstd(row, d, A(rms_eps));
    a.rstd.as<A>()[i] = rstd;
    store_scaled(row, rstd, a.n.as<S>() + i * d, d);
  }
}

// Row sums for the lambda gradients.
struct LambdaSums {
  double g_x, g_x0;
};

template <class S, class S0>
void mix_norm_grad_body(const MixNormGradArgs& a, int64_t N, int64_t d) {
  using A = Acc<S>;
  const bool mix = static_cast<bool>(a.resid_lambda);
  const A resid = mix ? read_scalar<A>(a.resid_lambda) : A(1);
  const A skip = mix ? read_scalar<A>(a.x0_lambda) : A(0);
  LambdaSums* sums = scratch<LambdaSums>(Slot::s0, N);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < N; ++i) {
    A* g = scratch<A>(Slot::row, d);
    S* dx = a.dx.as<S>() + i * d;
    const S* n = a.n.as<S>() + i * d;
    const A rstd = a.rstd.as<A>()[i];
    if (a.dn) {
      const S* dn = a.dn.as<S>() + i * d;
      const A mean = row_dot(dn, n, d) / A(d);
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) g[j] = load(dx[j]) + rstd * (load(dn[j]) - load(n[j]) * mean);
    } else {
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) g[j] = load(dx[j]);
    }
    store_scaled(g, resid, dx, d);
    if (!mix) continue;
    const S* x0 = a.x0.as<S>() + i * d;
    sums[i] = {static_cast<double>(row_dot(g, n, d) / rstd), static_cast<double>(row_dot(g, x0, d))};
    S0* dx0 = a.dx0.as<S0>() + i * d;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) store(dx0[j], load(dx0[j]) + skip * g[j]);
  }
  if (!mix) return;
  LambdaSums total{0, 0};
  for (int64_t i = 0; i < N; ++i) {
    total.g_x += sums[i].g_x;
    total.g_x0 += sums[i].g_x0;
  }
  const double x_in = (total.g_x - static_cast<double>(skip) * total.g_x0) / static_cast<double>(resid);
  a.resid_lambda_grad.as<A>()[0] += static_cast<A>(x_in);
  a.x0_lambda_grad.as<A>()[0] += static_cast<A>(total.g_x0);
}

int64_t check_rows(const char* op, const char* name, const Tensor& t) {
  ASSAY_OP_CHECK(op, t && t.rank >= 2 && t.numel() > 0,
                 std::string(name) + " is " + t.describe() + ", expected [N, d]");
  return t.dim(t.rank - 1);
}

void check_lambdas(const char* op, const Tensor& resid, const Tensor& x0, DType stat) {
  ASSAY_OP_CHECK(op, static_cast<bool>(resid) == static_cast<bool>(x0), "one of the two lambdas is empty");
  if (!resid) return;
  check_tensor(op, "resid_lambda", resid, stat, {1});
  check_tensor(op, "x0_lambda", x0, stat, {1});
}

void check_experts(const char* op, const ExpertSum& a, DType dtype, int64_t N, int64_t d) {
  ASSAY_OP_CHECK(op, a.y.rank == 2 && a.slot.rank == 2,
                 "y is " + a.y.describe() + " and slot " + a.slot.describe() + ", expected [R, d] and [N, k]");
  const int64_t R = a.y.dim(0), k = a.slot.dim(1);
  check_tensor(op, "y", a.y, dtype, {R, d});
  check_tensor(op, "slot", a.slot, DType::i32, {N, k});
  check_tensor(op, "weights", a.weights, stat_dtype(dtype), {N, k});
  check_tensor(op, "shared", a.shared, dtype, {N, d});
  for (int64_t i = 0; i < N * k; ++i) {
    const int32_t row = a.slot.as<int32_t>()[i];
    ASSAY_OP_CHECK(op, row >= 0 && row < R,
                   "slot " + std::to_string(row) + " is outside the " + std::to_string(R) + " rows of y");
  }
}

}  // namespace

void embed_norm(const EmbedNormArgs& a) {
  const int64_t d = check_rows("embed_norm", "x", a.x), N = a.x.numel() / d;
  const DType stat = stat_dtype(a.x.dtype);
  check_rows("embed_norm", "table", a.table);
  check_tensor("embed_norm", "table", a.table, stat, {a.table.numel() / d, d});
  check_tensor("embed_norm", "rstd", a.rstd, stat, {N});
  check_tokens("embed_norm", a.tokens, N, a.table.numel() / d);
  dispatch("embed_norm", a.x.dtype, [&]<class S>(S) { embed_norm_body<S>(a, N, d); });
}

void embed_norm_grad(const EmbedNormGradArgs& a) {
  const int64_t d = check_rows("embed_norm_grad", "x", a.x), N = a.x.numel() / d;
  const DType stat = stat_dtype(a.x.dtype);
  check_tensor("embed_norm_grad", "dx", a.dx, a.dx.dtype == stat ? stat : a.x.dtype, {N, d});
  check_tensor("embed_norm_grad", "rstd", a.rstd, stat, {N});
  check_tensor("embed_norm_grad", "table_grad", a.table_grad, stat, {a.table_grad.numel() / d, d});
  check_tokens("embed_norm_grad", a.tokens, N, a.table_grad.numel() / d);
  dispatch("embed_norm_grad", a.x.dtype, [&]<class S>(S) {
    if (a.dx.dtype == stat) {
      embed_norm_grad_body<S, Acc<S>>(a, N, d);
    } else {
      embed_norm_grad_body<S, S>(a, N, d);
    }
  });
}

void embed_grad(const EmbedGradArgs& a) {
  const int64_t d = check_rows("embed_grad", "dy", a.dy), N = a.dy.numel() / d;
  check_tensor("embed_grad", "table_grad", a.table_grad, stat_dtype(a.dy.dtype), {a.table_grad.numel() / d, d});
  check_tokens("embed_grad", a.tokens, N, a.table_grad.numel() / d);
  dispatch("embed_grad", a.dy.dtype, [&]<class S>(S) {
    const S* dy = a.dy.as<S>();
    scatter_rows(a.tokens.as<int32_t>(), N, d, a.table_grad.as<Acc<S>>(),
                 [=](int64_t i, int64_t j) { return load(dy[i * d + j]); });
  });
}

void mix_norm(const MixNormArgs& a) {
  const int64_t d = check_rows("mix_norm", "n", a.n), N = a.n.numel() / d;
  const DType stat = stat_dtype(a.n.dtype);
  check_tensor("mix_norm", "x_in", a.x_in, a.n.dtype, {N, d});
  check_tensor("mix_norm", "rstd", a.rstd, stat, {N});
  check_lambdas("mix_norm", a.resid_lambda, a.x0_lambda, stat);
  if (a.x || a.resid_lambda) check_tensor("mix_norm", "x", a.x, a.n.dtype, {N, d});
  if (a.resid_lambda) check_tensor("mix_norm", "x0", a.x0, a.n.dtype, {N, d});
  if (a.add) check_experts("mix_norm", a.add, a.n.dtype, N, d);
  dispatch("mix_norm", a.n.dtype, [&]<class S>(S) { mix_norm_body<S>(a, N, d); });
  quantize_normed(a.n, a.n8);
}

void mix_norm_grad(const MixNormGradArgs& a) {
  const int64_t d = check_rows("mix_norm_grad", "dx", a.dx), N = a.dx.numel() / d;
  const DType stat = stat_dtype(a.dx.dtype);
  check_lambdas("mix_norm_grad", a.resid_lambda, a.x0_lambda, stat);
  if (a.dn) check_tensor("mix_norm_grad", "dn", a.dn, a.dx.dtype, {N, d});
  if (a.dn || a.resid_lambda || a.n8t) {
    check_tensor("mix_norm_grad", "n", a.n, a.dx.dtype, {N, d});
    check_tensor("mix_norm_grad", "rstd", a.rstd, stat, {N});
  }
  if (a.resid_lambda) {
    check_tensor("mix_norm_grad", "x0", a.x0, a.dx.dtype, {N, d});
    check_tensor("mix_norm_grad", "dx0", a.dx0, a.dx0.dtype == stat ? stat : a.dx.dtype, {N, d});
    check_tensor("mix_norm_grad", "resid_lambda_grad", a.resid_lambda_grad, stat, {1});
    check_tensor("mix_norm_grad", "x0_lambda_grad", a.x0_lambda_grad, stat, {1});
  }
  dispatch("mix_norm_grad", a.dx.dtype, [&]<class S>(S) {
    if (a.dx0.dtype == stat) {
      mix_norm_grad_body<S, Acc<S>>(a, N, d);
    } else {
      mix_norm_grad_body<S, S>(a, N, d);
    }
  });
  quantize_normed(a.n, {}, a.n8t);
  if (!a.dx8 && !a.dx8t) return;
  ASSAY_OP_CHECK("mix_norm_grad", a.dx8_scale.scale != nullptr, "FP8 outputs need dx8_scale");
  quantize(
      {.x = a.dx.view({N, d}), .out = a.dx8, .transposed = a.dx8t, .delayed = a.dx8_scale, .calibrate = a.calibrate});
}

}  // namespace assay::cpu
