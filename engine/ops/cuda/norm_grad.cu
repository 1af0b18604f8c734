// Backward of mix_norm. Bytes per element with lambdas: dx, dn, n, x0, dx0 in (2 each), dx, dx0 out; without: dx, dn, n
// in, dx out.
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {
namespace {

// The lambda gradients are summed over the rows of a block, then over the blocks: the grid is part of the result.
constexpr int64_t lambda_blocks = 2112;  // 16 per SM of an H100

struct LambdaSums {
  double g_x, g_x0;
};

template <class S, class S0>
struct MixNormGrad {
  const S *dn, *n, *x0;  // dn: null without norm branch; x0 and what follows: null without lambdas
  const float *rstd, *resid_lambda, *x0_lambda;
  S* dx;
  S0* dx0;
  LambdaSums* sums;  // [gridDim.x]
  int64_t N;
  int d;
};

// One row: returns the sums of g * n and g * x0 over it.
template <class L, bool mix, class S, class S0>
__device__ __forceinline__ float2 grad_row(const MixNormGrad<S, S0>& a, int64_t row, bool live, float resid,
                                           float skip) {
  Packed<S> dx[L::chunks], dn[L::chunks], n[L::chunks], x0[L::chunks];
  Packed<S0> dx0[L::chunks];
  const bool norm = a.dn != nullptr;
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    const int64_t at = row * a.d + L::column(c);
    const bool valid = live && L::column(c) < a.d;
    dx[c] = load_or_zero(a.dx + at, valid);
    dn[c] = load_or_zero(a.dn + at, valid && norm);
    n[c] = load_or_zero(a.n + at, valid && (norm || mix));
    if constexpr (mix) {
      x0[c] = load_or_zero(a.x0 + at, valid);
      dx0[c] = load_or_zero(a.dx0 + at, valid);
    }
  }
  float mean = 0, rstd = 0;
  if (norm) {
    float dot = 0;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c)
#pragma unroll
      for (int i = 0; i < vec; ++i) dot += dn[c].get(i) * n[c].get(i);
    mean = L::sum(dot) / static_cast<float>(a.d);
    rstd = live ? a.rstd[row] : 0.0f;
  }
  float2 sums{0, 0};
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    float g[vec], out[vec];
#pragma unroll
    for (int i = 0; i < vec; ++i) {
      g[i] = dx[c].get(i);
      if (norm) g[i] += rstd * (dn[c].get(i) - n[c].get(i) * mean);
      out[i] = g[i] * resid;
    }
    const int64_t at = row * a.d + L::column(c);
    const bool valid = live && L::column(c) < a.d;
    if (valid) store(a.dx + at, out);
    if constexpr (mix) {
#pragma unroll
      for (int i = 0; i < vec; ++i) {
        sums.x += g[i] * n[c].get(i);
        sums.y += g[i] * x0[c].get(i);
        out[i] = dx0[c].get(i) + skip * g[i];
      }
      if (valid) store(a.dx0 + at, out);
    }
  }
  return sums;
}

template <class L, class S>
__global__ __launch_bounds__(128) void norm_grad_kernel(MixNormGrad<S, S> a) {
  const int64_t row = L::row();
  grad_row<L, false>(a, row, row < a.N, 1.0f, 0.0f);
}

template <class L, class S, class S0>
__global__ __launch_bounds__(128) void mix_norm_grad_kernel(MixNormGrad<S, S0> a) {
  const float resid = *a.resid_lambda, skip = *a.x0_lambda;
  double g_x = 0, g_x0 = 0;  // of this thread's columns of all its rows
  const int64_t stride = static_cast<int64_t>(gridDim.x) * L::rows_per_block;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * L::rows_per_block; first < a.N; first += stride) {
    const int64_t row = first + threadIdx.x / L::threads;
    const bool live = row < a.N;
    const float2 sums = grad_row<L, true>(a, row, live, resid, skip);
    if (live) g_x += static_cast<double>(sums.x / a.rstd[row]);
    g_x0 += static_cast<double>(sums.y);
  }
  __shared__ LambdaSums parts[4];
  g_x = warp_sum(g_x);
  g_x0 = warp_sum(g_x0);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = {g_x, g_x0};
  __syncthreads();
  if (threadIdx.x == 0)
    a.sums[blockIdx.x] = {parts[0].g_x + parts[1].g_x + parts[2].g_x + parts[3].g_x,
                          parts[0].g_x0 + parts[1].g_x0 + parts[2].g_x0 + parts[3].g_x0};
}

// x_in = (x - x0_lambda * x0) / resid_lambda and x = n / rstd: see MixNormGradArgs.
__global__ void lambda_grad_kernel(const LambdaSums* sums, int count, const float* resid_lambda, const float* x0_lambda,
                                   float* resid_lambda_grad, float* x0_lambda_grad) {
  double g_x = 0, g_x0 = 0;
  for (int i = threadIdx.x; i < count; i += 32) {
    g_x += sums[i].g_x;
    g_x0 += sums[i].g_x0;
  }
  g_x = warp_sum(g_x);
  g_x0 = warp_sum(g_x0);
  if (threadIdx.x != 0) return;
  const double g_x_in = (g_x - static_cast<double>(*x0_lambda) * g_x0) / static_cast<double>(*resid_lambda);
  *resid_lambda_grad += static_cast<float>(g_x_in);
  *x0_lambda_grad += static_cast<float>(g_x0);
}

void check(const char* op, const MixNormGradArgs& a, int64_t N, int64_t d) {
  check_vectors(op, "dx", a.dx, d);
  ASSAY_OP_CHECK(op, static_cast<bool>(a.resid_lambda) == static_cast<bool>(a.x0_lambda),
                 "one of the two lambdas is empty");
  if (a.dn) {
    check_tensor(op, "dn", a.dn, a.dx.dtype, {N, d});
    check_vectors(op, "dn", a.dn, d);
  }
  if (a.dn || a.resid_lambda) {
    check_tensor(op, "n", a.n, a.dx.dtype, {N, d});
    check_vectors(op, "n", a.n, d);
    check_tensor(op, "rstd", a.rstd, DType::f32, {N});
  }
  if (!a.resid_lambda) return;
  check_tensor(op, "resid_lambda", a.resid_lambda, DType::f32, {1});
  check_tensor(op, "x0_lambda", a.x0_lambda, DType::f32, {1});
  check_tensor(op, "x0", a.x0, a.dx.dtype, {N, d});
  check_vectors(op, "x0", a.x0, d);
  check_tensor(op, "dx0", a.dx0, a.dx0.dtype == DType::f32 ? DType::f32 : a.dx.dtype, {N, d});
  check_vectors(op, "dx0", a.dx0, d);
  check_tensor(op, "resid_lambda_grad", a.resid_lambda_grad, DType::f32, {1});
  check_tensor(op, "x0_lambda_grad", a.x0_lambda_grad, DType::f32, {1});
}

template <class L, class S, class S0>
void launch_mix(cudaStream_t stream, const MixNormGradArgs& a, int64_t N, int64_t d, Workspace workspace) {
  const int64_t blocks = std::min(ceil_div(N, L::rows_per_block), lambda_blocks);
  LambdaSums* sums = workspace.take<LambdaSums>("mix_norm_grad", blocks);
  mix_norm_grad_kernel<L, S, S0><<<blocks, 128, 0, stream>>>(
      {a.dn.as<S>(), a.n.as<S>(), a.x0.as<S>(), a.rstd.as<float>(), a.resid_lambda.as<float>(), a.x0_lambda.as<float>(),
       a.dx.as<S>(), a.dx0.as<S0>(), sums, N, static_cast<int>(d)});
  ASSAY_CUDA_LAUNCHED("mix_norm_grad", a.dx.describe());
  lambda_grad_kernel<<<1, 32, 0, stream>>>(sums, static_cast<int>(blocks), a.resid_lambda.as<float>(),
                                           a.x0_lambda.as<float>(), a.resid_lambda_grad.as<float>(),
                                           a.x0_lambda_grad.as<float>());
}

}  // namespace

// ----------------------------------------------------------------------------------------------------------- launcher

void mix_norm_grad(cudaStream_t stream, const MixNormGradArgs& a, Workspace workspace) {
  const char* op = "mix_norm_grad";
  ASSAY_OP_CHECK(op, a.dx && a.dx.rank >= 2 && a.dx.numel() > 0, "dx is " + a.dx.describe() + ", expected [N, d]");
  const int64_t d = a.dx.dim(a.dx.rank - 1), N = a.dx.numel() / d;
  check(op, a, N, d);
  if (!a.dn && !a.resid_lambda) return;  // dx = g = dx
  dispatch(op, a.dx.dtype, [&]<class S>(S) {
    dispatch_row(op, a.dx, d, [&]<class L>(L) {
      if (!a.resid_lambda) {
        norm_grad_kernel<L, S><<<ceil_div(N, L::rows_per_block), 128, 0, stream>>>({.dn = a.dn.as<S>(),
                                                                                    .n = a.n.as<S>(),
                                                                                    .rstd = a.rstd.as<float>(),
                                                                                    .dx = a.dx.as<S>(),
                                                                                    .N = N,
                                                                                    .d = static_cast<int>(d)});
      } else if (a.dx0.dtype == DType::f32) {
        launch_mix<L, S, float>(stream, a, N, d, workspace);
      } else {
        launch_mix<L, S, S>(stream, a, N, d, workspace);
      }
    });
  });
  ASSAY_CUDA_LAUNCHED(op, a.dx.describe());
}

}  // namespace assay::cuda
