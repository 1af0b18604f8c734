// Muon for matrices that fit into the shared memory of one block (routers and gates): one kernel from gradient to
// update. The products would be launches of a few microseconds each with nothing to multiply. Same rounding points,
// sums in another order. Compiled without contraction into FMA, as the twin is.
#include "engine/ops/cuda/muon_device.cuh"
#include "engine/ops/optimizer.h"

namespace assay::cuda {
namespace {

using namespace muon_device;

constexpr int side = small_muon_s;  // of the square matrices, padded with zeros
struct alignas(16) Square {
  float at[side][side];
};

struct Coefficients {
  float a, b, c;
};
struct Iterations {
  Coefficients of[5];
};

// y = a * y + (b * A + c * A * A) * y with A = y * y^T, rounded where the twin rounds.
__device__ __forceinline__ void iterate(float* y, Square& gram, Square& poly, int s, int l, const Coefficients& p) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = 0; i < s; ++i) {
    for (int j = i + warp; j < s; j += threads / 32) {
      float sum = 0;
      for (int k = lane; k < l; k += 32) sum += y[i * l + k] * y[j * l + k];
      sum = round_to<bf16>(warp_sum(sum));
      if (lane == 0) gram.at[i][j] = gram.at[j][i] = sum;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < side * side; i += threads) {
    const int row = i / side, column = i % side;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < side; ++k) sum += gram.at[row][k] * gram.at[k][column];
    poly.at[row][column] = round_to<bf16>(p.b * gram.at[row][column] + p.c * sum);
  }
  __syncthreads();
  for (int column = threadIdx.x; column < l; column += threads) {
    float old[side];
#pragma unroll
    for (int k = 0; k < side; ++k) old[k] = k < s ? y[k * l + column] : 0.0f;
    for (int i = 0; i < s; ++i) {
      float sum = 0;
#pragma unroll
      for (int k = 0; k < side; ++k) sum += poly.at[i][k] * old[k];
      float& entry = y[i * l + column];
      entry = round_to<bf16>(p.a * entry + sum);
    }
  }
  __syncthreads();
}

__global__ __launch_bounds__(threads) void small_kernel(const __grid_constant__ MuonChunk c, MuonFactors f,
                                                        Iterations iterations) {
  if (skipped(f)) return;
  extern __shared__ double shared[];
  double* squares = shared;                                 // [l]
  float* factors = reinterpret_cast<float*>(shared + c.l);  // [l]
  float* y = factors + c.l;                                 // [s, l], values that BF16 can hold
  __shared__ Square gram, poly;
  const Matrix m = find_matrix(c, blockIdx.x);
  const int n = c.rows * c.columns, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = threadIdx.x; i < side * side; i += threads) gram.at[i / side][i % side] = 0;

#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += threads) {
    float v = m.momentum[i];
    const float x = nesterov(m.grad[i], v, f);
    m.momentum[i] = v;
    y[c.transposed ? i % c.columns * c.l + i / c.columns : i] = round_to<bf16>(x);
  }
  __syncthreads();
  for (int row = warp; row < c.rows; row += threads / 32) {
    double sum = 0;
    for (int k = lane; k < c.columns; k += 32) {
      const double x = y[c.transposed ? k * c.l + row : row * c.l + k];
      sum = fma(x, x, sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) squares[row] = sum;
  }
  __syncthreads();
  const float normalise = equilibrate(squares, factors, c.rows);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += threads)
    y[i] = round_to<bf16>(round_to<bf16>(y[i] * factors[c.transposed ? i % c.l : i / c.l]) * normalise);
  __syncthreads();

#pragma unroll 1
  for (int i = 0; i < 5; ++i) iterate(y, gram, poly, c.s, c.l, iterations.of[i]);

  for (int column = threadIdx.x; column < c.l; column += threads) {
    double sum = 0;
    for (int k = 0; k < c.s; ++k) {
      const double x = y[k * c.l + column];
      sum = fma(x, x, sum);
    }
    squares[column] = sum;
  }
  __syncthreads();
  const float snap = second_moments(squares, m.second_moment, factors, c.s, c.l, f);
  __syncthreads();
#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += threads) {
    const int row = i / c.columns, column = i % c.columns;
    const float value = y[c.transposed ? column * c.l + row : i];
    m.param[i] = updated(m.param[i], value, snap, factors[c.transposed ? row : column], f);
  }
}

constexpr int shared_bytes(int s, int l) {
  return l * 12 + s * l * 4;
}
static_assert(shared_bytes(small_muon_s, small_muon_l) < 200 << 10);

}  // namespace

void muon_small(cudaStream_t stream, const MuonChunk& c, const MuonFactors& f) {
  static const bool configured = [] {
    ASSAY_CUDA_CHECK("muon", cudaFuncSetAttribute(small_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  shared_bytes(small_muon_s, small_muon_l)));
    return true;
  }();
  static_cast<void>(configured);
  Iterations iterations;
  static_assert(std::size(polar_express) == std::size(Iterations{}.of));
  for (size_t i = 0; i < std::size(polar_express); ++i) {
    const PolarExpress& p = polar_express[i];
    iterations.of[i] = {static_cast<float>(p.a), static_cast<float>(p.b), static_cast<float>(p.c)};
  }
  small_kernel<<<c.matrices, threads, shared_bytes(c.s, c.l), stream>>>(c, f, iterations);
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
}

}  // namespace assay::cuda
