// Backward of mix_norm. Bytes per element with lambdas: dx, dn, n, x0, dx0 in (2 each), dx, dx0 out; without: dx, dn, n
// in, dx out.
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/norm_grad.cuh"

namespace assay::cuda {
namespace {

template <class L, class S>
__global__ __launch_bounds__(128) void norm_grad_kernel(MixNormGrad<S, S> a) {
  const int64_t row = L::row();
  Packed<S> n[L::chunks], dx[L::chunks];
  grad_row<L, false>(a, row, row < a.N, 1.0f, 0.0f, n, dx);
}

template <class L, class S, class S0>
__global__ __launch_bounds__(128) void mix_norm_grad_kernel(MixNormGrad<S, S0> a) {
  const float resid = *a.resid_lambda, skip = *a.x0_lambda;
  LambdaSums sums{0, 0};
  for (int r = threadIdx.x / L::threads; r < lambda_rows; r += L::rows_per_block) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * lambda_rows + r;
    Packed<S> n[L::chunks], dx[L::chunks];
    add_lambda_sums<L>(a, row, row < a.N, grad_row<L, true>(a, row, row < a.N, resid, skip, n, dx), &sums);
  }
  store_lambda_sums(sums, a.sums);
}

// x_in = (x - x0_lambda * x0) / resid_lambda and x = n / rstd: see MixNormGradArgs.
__global__ __launch_bounds__(256) void lambda_grad_kernel(const LambdaSums* sums, int count, const float* resid_lambda,
                                                          const float* x0_lambda, float* resid_lambda_grad,
                                                          float* x0_lambda_grad) {
  __shared__ LambdaSums parts[8];
  double g_x = 0, g_x0 = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < count; i += 256) {
    g_x += sums[i].g_x;
    g_x0 += sums[i].g_x0;
  }
  g_x = warp_sum(g_x);
  g_x0 = warp_sum(g_x0);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = {g_x, g_x0};
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < 8; ++i) {
    g_x += parts[i].g_x;
    g_x0 += parts[i].g_x0;
  }
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
  if (a.dn || a.resid_lambda || a.n8t) {
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

void launch_lambda_grad(cudaStream_t stream, const MixNormGradArgs& a, const LambdaSums* sums, int64_t blocks) {
  ASSAY_CUDA_LAUNCHED("mix_norm_grad", a.dx.describe());
  lambda_grad_kernel<<<1, 256, 0, stream>>>(sums, static_cast<int>(blocks), a.resid_lambda.as<float>(),
                                            a.x0_lambda.as<float>(), a.resid_lambda_grad.as<float>(),
                                            a.x0_lambda_grad.as<float>());
}

template <class L, class S, class S0>
void launch_mix(cudaStream_t stream, const MixNormGradArgs& a, int64_t N, int64_t d, Workspace workspace) {
  const int64_t blocks = ceil_div(N, lambda_rows);
  LambdaSums* sums = workspace.take<LambdaSums>("mix_norm_grad", blocks);
  mix_norm_grad_kernel<L, S, S0><<<blocks, 128, 0, stream>>>(kernel_view<S, S0>(a, N, d, sums));
  launch_lambda_grad(stream, a, sums, blocks);
}

void plain(cudaStream_t stream, const MixNormGradArgs& a, int64_t N, int64_t d, Workspace workspace,
           const Tiling& tiling) {
  const char* op = "mix_norm_grad";
  dispatch(op, a.dx.dtype, [&]<class S>(S) {
    dispatch_row(op, a.dx, d, tiling.by_width, [&]<class L>(L) {
      if (!a.resid_lambda) {
        norm_grad_kernel<L, S><<<ceil_div(N, L::rows_per_block), 128, 0, stream>>>(kernel_view<S, S>(a, N, d, nullptr));
      } else if (a.dx0.dtype == DType::f32) {
        launch_mix<L, S, float>(stream, a, N, d, workspace);
      } else {
        launch_mix<L, S, S>(stream, a, N, d, workspace);
      }
    });
  });
  ASSAY_CUDA_LAUNCHED(op, a.dx.describe());
}

}  // namespace

// ----------------------------------------------------------------------------------------------------------- launcher

void mix_norm_grad(cudaStream_t stream, const MixNormGradArgs& a, Workspace workspace, const Tiling& tiling) {
  const char* op = "mix_norm_grad";
  ASSAY_OP_CHECK(op, a.dx && a.dx.rank >= 2 && a.dx.numel() > 0, "dx is " + a.dx.describe() + ", expected [N, d]");
  const int64_t d = a.dx.dim(a.dx.rank - 1), N = a.dx.numel() / d;
  check(op, a, N, d);
  const bool codes = a.dx8 || a.dx8t;
  ProducedFp8 fp8;
  TransposedNorm normed;
  const bool normed_too = transposed_norm(op, a.n8t, N, d, &normed) && (a.dn || !a.n8t);
  if (codes && produced_fp8(op, a.dx8, a.dx8t, a.dx8_scale, a.calibrate, N, d, &fp8) && norm_grad_fp8_takes(a, d) &&
      normed_too) {
    LambdaSums* sums = a.resid_lambda ? workspace.take<LambdaSums>(op, norm_grad_fp8_blocks(N)) : nullptr;
    norm_grad_fp8(stream, kernel_view<bf16, bf16>(a, N, d, sums), fp8, normed, a, tiling);
    if (a.resid_lambda) launch_lambda_grad(stream, a, sums, norm_grad_fp8_blocks(N));
    ASSAY_CUDA_LAUNCHED(op, a.dx.describe());
    return;
  }
  if (a.dn || a.resid_lambda) plain(stream, a, N, d, workspace, tiling);  // else dx = g = dx
  if (codes)
    quantize(
        stream,
        {.x = a.dx.view({N, d}), .out = a.dx8, .transposed = a.dx8t, .delayed = a.dx8_scale, .calibrate = a.calibrate},
        workspace);
  if (a.n8t) quantize(stream, {.x = a.n.view({N, d}), .transposed = a.n8t, .static_scale = normed.scale}, workspace);
}

}  // namespace assay::cuda
