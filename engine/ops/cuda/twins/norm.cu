// Forward of the norms. Bytes per element: embed_norm 4 + 2 (f32 table in, bf16 out); mix_norm 2 + 2 in, 2 + 2 out
// (+ 1 for FP8); without lambdas 2 in, 2 out; with an expert sum to add 2 * (k + 1) more in.
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {
namespace {

template <class L, class S>
__global__ __launch_bounds__(128) void embed_norm_kernel(const int32_t* tokens, const float* table, S* out,
                                                         float* rstds, int64_t N, int d) {
  const int64_t row = L::row();
  const bool live = row < N;
  const float* from = table + (live ? static_cast<int64_t>(tokens[row]) * d : 0);
  Packed<float> raw[L::chunks];
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) raw[c] = load_or_zero(from + L::column(c), live && L::column(c) < d);
  Packed<S> x[L::chunks];
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    float v[vec];
    unpack(raw[c], v);
    x[c] = pack<S>(v);
  }
  const float rstd = norm_row<L>(x, d);
  if (!live) return;
  if (L::lane() == 0) rstds[row] = rstd;
#pragma unroll
  for (int c = 0; c < L::chunks; ++c)
    if (L::column(c) < d) store(out + row * d + L::column(c), x[c]);
}

template <class S>
struct MixNorm {
  const S *x_in, *x0;
  const float *resid_lambda, *x0_lambda;  // both or none
  S *x, *n;                               // x may be null
  float* rstd;
  int64_t N;
  int d;
  NormedFp8 n8;
  // The expert sum, if there is one.
  const S *y, *shared;
  const int32_t* slot;
  const float* weights;
  int k;
};

// x += the expert sum of the row, rounded: combine's arithmetic. picks: k, known at compile time so that all reads are
// in flight together; -1: any k.
template <int picks, class L, class S>
__device__ __forceinline__ void add_experts(const MixNorm<S>& a, int64_t row, bool live, Packed<S> (&x)[L::chunks]) {
  const int k = picks > 0 ? picks : a.k;
  constexpr int unrolled = picks > 0 ? picks : 1;
  Packed<S> shared[L::chunks];
#pragma unroll
  for (int c = 0; c < L::chunks; ++c)
    shared[c] = load_or_zero(a.shared + row * a.d + L::column(c), live && L::column(c) < a.d);
  float sum[L::chunks][vec] = {};
#pragma unroll unrolled
  for (int j = 0; j < k; ++j) {
    const int64_t from = live ? a.slot[row * k + j] : 0;
    const float weight = live ? a.weights[row * k + j] : 0.0f;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
      const Packed<S> y = load_or_zero(a.y + from * a.d + L::column(c), live && L::column(c) < a.d);
#pragma unroll
      for (int i = 0; i < vec; ++i) sum[c][i] += weight * y.get(i);
    }
  }
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
#pragma unroll
    for (int i = 0; i < vec; ++i) sum[c][i] = sum[c][i] + shared[c].get(i) + x[c].get(i);
    x[c] = pack<S>(sum[c]);
  }
}

// picks: 0: no expert sum; otherwise see add_experts.
template <int picks, class L, class S>
__global__ __launch_bounds__(128) void mix_norm_kernel(MixNorm<S> a) {
  const int64_t row = L::row();
  const bool live = row < a.N;
  Packed<S> x[L::chunks], x0[L::chunks];
#pragma unroll
  for (int c = 0; c < L::chunks; ++c)
    x[c] = load_or_zero(a.x_in + row * a.d + L::column(c), live && L::column(c) < a.d);
  if (a.resid_lambda != nullptr) {
#pragma unroll
    for (int c = 0; c < L::chunks; ++c)
      x0[c] = load_or_zero(a.x0 + row * a.d + L::column(c), live && L::column(c) < a.d);
  }
  if constexpr (picks != 0) add_experts<picks, L>(a, row, live, x);
  if (a.resid_lambda != nullptr) {
    const float resid = *a.resid_lambda, skip = *a.x0_lambda;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
      float v[vec];
#pragma unroll
      for (int i = 0; i < vec; ++i) v[i] = resid * x[c].get(i) + skip * x0[c].get(i);
      x[c] = pack<S>(v);
    }
  }
  if (a.x != nullptr && live) {
#pragma unroll
    for (int c = 0; c < L::chunks; ++c)
      if (L::column(c) < a.d) store(a.x + row * a.d + L::column(c), x[c]);
  }
  const float rstd = norm_row<L>(x, a.d);
  if (live) {
    if (L::lane() == 0) a.rstd[row] = rstd;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c)
      if (L::column(c) < a.d) store(a.n + row * a.d + L::column(c), x[c]);
  }
  if (a.n8.codes == nullptr) return;
  if (a.n8.e5m2) {
    store_fp8_row<E5m2, L>(a.n8, x, row, a.d, live);
  } else {
    store_fp8_row<E4m3, L>(a.n8, x, row, a.d, live);
  }
}

int64_t check_rows(const char* op, const char* name, const Tensor& t) {
  ASSAY_OP_CHECK(op, t && t.rank >= 2 && t.numel() > 0,
                 std::string(name) + " is " + t.describe() + ", expected [N, d]");
  const int64_t d = t.dim(t.rank - 1);
  check_vectors(op, name, t, d);
  ASSAY_CUDA_TAKES(op, cuda_limits, width, d);
  return d;
}

void check_experts(const char* op, const ExpertSum& a, DType dtype, int64_t N, int64_t d) {
  ASSAY_OP_CHECK(op, a.y.rank == 2 && a.slot.rank == 2,
                 "y is " + a.y.describe() + " and slot " + a.slot.describe() + ", expected [R, d] and [N, k]");
  check_tensor(op, "y", a.y, dtype, {a.y.dim(0), d});
  check_tensor(op, "slot", a.slot, DType::i32, {N, a.slot.dim(1)});
  check_tensor(op, "weights", a.weights, DType::f32, {N, a.slot.dim(1)});
  check_tensor(op, "shared", a.shared, dtype, {N, d});
  check_vectors(op, "y", a.y, d);
  check_vectors(op, "shared", a.shared, d);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- launchers

void embed_norm(cudaStream_t stream, const EmbedNormArgs& a, const Tiling& tiling) {
  const char* op = "embed_norm";
  const int64_t d = check_rows(op, "x", a.x), N = a.x.numel() / d;
  check_rows(op, "table", a.table);
  check_tensor(op, "table", a.table, DType::f32, {a.table.numel() / d, d});
  check_tensor(op, "rstd", a.rstd, DType::f32, {N});
  check_tensor(op, "tokens", a.tokens, DType::i32, {N});
  dispatch(op, a.x.dtype, [&]<class S>(S) {
    dispatch_row(op, a.x, d, tiling.by_width, [&]<class L>(L) {
      const int threads = block_threads<L>(tiling.norm_warps);
      embed_norm_kernel<L, S><<<ceil_div(N, threads / L::threads), threads, 0, stream>>>(
          a.tokens.as<int32_t>(), a.table.as<float>(), a.x.as<S>(), a.rstd.as<float>(), N, static_cast<int>(d));
    });
  });
  ASSAY_CUDA_LAUNCHED(op, a.x.describe());
}

void mix_norm(cudaStream_t stream, const MixNormArgs& a, const Tiling& tiling) {
  const char* op = "mix_norm";
  const int64_t d = check_rows(op, "n", a.n), N = a.n.numel() / d;
  check_tensor(op, "x_in", a.x_in, a.n.dtype, {N, d});
  check_vectors(op, "x_in", a.x_in, d);
  check_tensor(op, "rstd", a.rstd, DType::f32, {N});
  ASSAY_OP_CHECK(op, static_cast<bool>(a.resid_lambda) == static_cast<bool>(a.x0_lambda),
                 "one of the two lambdas is empty");
  if (a.x || a.resid_lambda) {
    check_tensor(op, "x", a.x, a.n.dtype, {N, d});
    check_vectors(op, "x", a.x, d);
  }
  if (a.resid_lambda) {
    check_tensor(op, "resid_lambda", a.resid_lambda, DType::f32, {1});
    check_tensor(op, "x0_lambda", a.x0_lambda, DType::f32, {1});
    check_tensor(op, "x0", a.x0, a.n.dtype, {N, d});
    check_vectors(op, "x0", a.x0, d);
  }
  if (a.add) check_experts(op, a.add, a.n.dtype, N, d);
  const NormedFp8 n8 = normed_fp8(op, a.n8, N, d);
  const int picks = a.add ? static_cast<int>(a.add.slot.dim(1)) : 0;
  dispatch(op, a.n.dtype, [&]<class S>(S) {
    const MixNorm<S> args{a.x_in.as<S>(),
                          a.x0.as<S>(),
                          a.resid_lambda.as<float>(),
                          a.x0_lambda.as<float>(),
                          a.x.as<S>(),
                          a.n.as<S>(),
                          a.rstd.as<float>(),
                          N,
                          static_cast<int>(d),
                          n8,
                          a.add.y.as<S>(),
                          a.add.shared.as<S>(),
                          a.add.slot.as<int32_t>(),
                          a.add.weights.as<float>(),
                          picks};
    dispatch_row(op, a.n, d, tiling.by_width, [&]<class L>(L) {
      const auto kernel = picks == 0   ? mix_norm_kernel<0, L, S>
                          : picks == 2 ? mix_norm_kernel<2, L, S>
                                       : mix_norm_kernel<-1, L, S>;
      const int threads = block_threads<L>(tiling.norm_warps);
      kernel<<<ceil_div(N, threads / L::threads), threads, 0, stream>>>(args);
    });
  });
  ASSAY_CUDA_LAUNCHED(op, a.n.describe());
}

}  // namespace assay::cuda
