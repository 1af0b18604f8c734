// A row of mix_norm's backward, for its plain and its FP8 kernels.
#pragma once

#include "engine/ops/cuda/fp8_tile.cuh"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {

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

template <class S, class S0>
MixNormGrad<S, S0> kernel_view(const MixNormGradArgs& a, int64_t N, int64_t d, LambdaSums* sums) {
  return {a.dn.as<S>(),
          a.n.as<S>(),
          a.x0.as<S>(),
          a.rstd.as<float>(),
          a.resid_lambda.as<float>(),
          a.x0_lambda.as<float>(),
          a.dx.as<S>(),
          a.dx0.as<S0>(),
          sums,
          N,
          static_cast<int>(d)};
}

// norm_grad_fp8.cu: writes the codes of dx too and, where there is dn, those of n transposed. Takes BF16 rows of up to
// 1536 columns; lambda sums come from that many blocks.
bool norm_grad_fp8_takes(const MixNormGradArgs&, int64_t d);
int64_t norm_grad_fp8_blocks(int64_t N);
void norm_grad_fp8(cudaStream_t, const MixNormGrad<bf16, bf16>&, const ProducedFp8&, const TransposedNorm&,
                   const MixNormGradArgs&, const Tiling&);

// Rows of a block that sums lambda gradients: the same in both kernels, as the order of a sum is part of its result.
constexpr int lambda_rows = 32;

// Every rounding is spelled out, so that the plain and the FP8 kernel give the same bits: a run that begins with the
// one, to calibrate, goes on with the other.
// One row: n as it lies in memory, its new dx, and the sums of g * n and g * x0 over it.
template <class L, bool mix, class S, class S0>
__device__ __forceinline__ float2 grad_row(const MixNormGrad<S, S0>& a, int64_t row, bool live, float resid, float skip,
                                           Packed<S> (&n)[L::chunks], Packed<S> (&dx)[L::chunks]) {
  Packed<S> dn[L::chunks], x0[L::chunks];
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
      for (int i = 0; i < vec; ++i) dot = __fmaf_rn(dn[c].get(i), n[c].get(i), dot);
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
      if (norm) g[i] = __fmaf_rn(rstd, __fmaf_rn(-n[c].get(i), mean, dn[c].get(i)), g[i]);
      out[i] = __fmul_rn(g[i], resid);
    }
    const int64_t at = row * a.d + L::column(c);
    const bool valid = live && L::column(c) < a.d;
    dx[c] = pack<S>(out);
    if (valid) store(a.dx + at, dx[c]);
    if constexpr (mix) {
#pragma unroll
      for (int i = 0; i < vec; ++i) {
        sums.x = __fmaf_rn(g[i], n[c].get(i), sums.x);
        sums.y = __fmaf_rn(g[i], x0[c].get(i), sums.y);
        out[i] = __fmaf_rn(skip, g[i], dx0[c].get(i));
      }
      if (valid) store(a.dx0 + at, out);
    }
  }
  return sums;
}

// The lambda gradients of this thread's rows so far.
template <class L, class S, class S0>
__device__ __forceinline__ void add_lambda_sums(const MixNormGrad<S, S0>& a, int64_t row, bool live, float2 of_row,
                                                LambdaSums* sums) {
  if (live) sums->g_x += static_cast<double>(of_row.x / a.rstd[row]);
  sums->g_x0 += static_cast<double>(of_row.y);
}

// Of all the block's threads, to the block's place.
__device__ __forceinline__ void store_lambda_sums(LambdaSums of_thread, LambdaSums* sums) {
  __shared__ LambdaSums parts[4];
  of_thread = {warp_sum(of_thread.g_x), warp_sum(of_thread.g_x0)};
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = of_thread;
  __syncthreads();
  if (threadIdx.x == 0)
    sums[blockIdx.x] = {parts[0].g_x + parts[1].g_x + parts[2].g_x + parts[3].g_x,
                        parts[0].g_x0 + parts[1].g_x0 + parts[2].g_x0 + parts[3].g_x0};
}

}  // namespace assay::cuda
