// What the kernels of Muon share on the device. Sums of squares run in double, as the twin's, in an order that the
// shape alone fixes.
#pragma once

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/muon_chunk.h"

namespace assay::cuda::muon_device {

constexpr int threads = 256;  // of every block

struct Matrix {
  float* param;
  const float* grad;
  float* momentum;
  float* second_moment;
};
__device__ __forceinline__ Matrix find_matrix(const MuonChunk& c, int index) {
  int i = 0;
  while (index >= c.end[i]) ++i;
  const int64_t k = index - (i > 0 ? c.end[i - 1] : 0);
  const int64_t at = k * c.rows * c.columns;
  return {c.param[i] + at, c.grad[i] + at, c.momentum[i] + at, c.second_moment[i] + k * c.l};
}
__device__ __forceinline__ bf16* find_y(const MuonChunk& c, int index) {
  return c.y + static_cast<int64_t>(index) * c.s_padded * c.l_padded;
}

__device__ __forceinline__ bool skipped(const MuonFactors& f) {
  return f.skip != nullptr && *f.skip != 0;
}

// Sum over the block; every thread gets it.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double parts[threads / 32];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int i = 0; i < threads / 32; ++i) sum += parts[i];
  return sum;
}
__device__ __forceinline__ double at_least(double x, double low) {
  return x < low ? low : x;  // a NaN stays one
}

__device__ __forceinline__ float nesterov(float g, float& m, const MuonFactors& f) {
  m += (g - m) * f.momentum_take;
  return g + (m - g) * f.momentum_beta;
}

// Factors that give the rows of X one common norm, from their sums of squares. Returns the scale that then gives X a
// spectral norm below 1. For a whole block; a thread that uses the factors of another must synchronise first.
__device__ __forceinline__ float equilibrate(const double* squares, float* factors, int rows) {
  double total = 0;
  for (int r = threadIdx.x; r < rows; r += threads) total += squares[r];
  const double target = sqrt(block_sum(total) / rows);
  double equilibrated = 0;
  for (int r = threadIdx.x; r < rows; r += threads) {
    const float factor = static_cast<float>(target / at_least(sqrt(squares[r]), 1e-6));
    factors[r] = factor;
    equilibrated += squares[r] * factor * factor;
  }
  return static_cast<float>(1 / (sqrt(block_sum(equilibrated)) * 1.01 + 1e-6));
}

// One second moment per column of Y [s, l], averaged over its rows, from the columns' sums of squares; the factors by
// which columns are to be multiplied so that Y keeps its norm. Returns the scale to be applied before, which snaps that
// norm to sqrt(s). As above.
__device__ __forceinline__ float second_moments(const double* squares, float* second, float* factors, int s, int l,
                                                const MuonFactors& f) {
  double total = 0;
  for (int i = threadIdx.x; i < l; i += threads) total += squares[i];
  const float scale = static_cast<float>(sqrt(static_cast<double>(s)) / at_least(sqrt(block_sum(total)), 1e-6));
  double old_norm = 0, new_norm = 0;
  for (int i = threadIdx.x; i < l; i += threads) {
    const double sum = squares[i] * scale * scale;
    const float moment = second[i] + (static_cast<float>(sum / s) - second[i]) * f.second_take;
    const float step = 1.0f / sqrtf(moment < 1e-10f ? 1e-10f : moment);
    second[i] = moment;
    factors[i] = step;
    old_norm += sum;
    new_norm += sum * step * step;
  }
  old_norm = block_sum(old_norm);
  new_norm = block_sum(new_norm);
  const float keep = static_cast<float>(sqrt(old_norm) / at_least(sqrt(new_norm), 1e-10));
  for (int i = threadIdx.x; i < l; i += threads) factors[i] *= keep;
  return scale;
}

// Cautious decay: only where the update and the weight agree in sign.
__device__ __forceinline__ float updated(float p, float y, float scale, float factor, const MuonFactors& f) {
  const float g = y * scale * factor;
  const float decayed = g * p >= 0 ? f.decay * p : 0.0f;
  return p - (f.lr * g + decayed);
}

}  // namespace assay::cuda::muon_device
