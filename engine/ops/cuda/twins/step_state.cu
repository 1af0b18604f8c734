// Bookkeeping of a step: a few hundred values, one block.
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

constexpr int block = 256;

__global__ __launch_bounds__(block) void load_kernel(const int32_t* counts, int32_t* total, int32_t* peak, int64_t n) {
  for (int64_t i = threadIdx.x; i < n; i += block) {
    total[i] += counts[i];
    peak[i] = max(peak[i], counts[i]);
  }
}

__global__ __launch_bounds__(block) void verdict_kernel(const double* loss, const double* squares, int64_t n,
                                                        const int32_t* peak, int64_t peaks, int64_t capacity,
                                                        int32_t* verdict) {
  bool finite = isfinite(*loss), fits = true;
  for (int64_t i = threadIdx.x; i < n; i += block) finite = finite && isfinite(squares[i]);
  if (capacity > 0)
    for (int64_t i = threadIdx.x; i < peaks; i += block) fits = fits && peak[i] <= capacity;
  const bool all_finite = __syncthreads_and(finite), all_fit = __syncthreads_and(fits);
  if (threadIdx.x == 0 && !(all_finite && all_fit))
    *verdict |= (all_finite ? 0 : step_not_finite) | (all_fit ? 0 : step_over_capacity);
}

}  // namespace

void expert_load(cudaStream_t stream, const ExpertLoadArgs& a) {
  const char* op = "expert_load";
  const int64_t n = a.counts.numel();
  check_tensor(op, "counts", a.counts, DType::i32, {n});
  check_tensor(op, "total", a.total, DType::i32, {n});
  check_tensor(op, "peak", a.peak, DType::i32, {n});
  load_kernel<<<1, block, 0, stream>>>(a.counts.as<int32_t>(), a.total.as<int32_t>(), a.peak.as<int32_t>(), n);
  ASSAY_CUDA_LAUNCHED(op, a.counts.describe());
}

void step_verdict(cudaStream_t stream, const StepVerdictArgs& a) {
  const char* op = "step_verdict";
  check_tensor(op, "loss_sum", a.loss_sum, DType::f64, {1});
  check_tensor(op, "square_sums", a.square_sums, DType::f64, {a.square_sums.numel()});
  check_tensor(op, "peak", a.peak, DType::i32, {a.peak.numel()});
  check_tensor(op, "verdict", a.verdict, DType::i32, {1});
  verdict_kernel<<<1, block, 0, stream>>>(a.loss_sum.as<double>(), a.square_sums.as<double>(), a.square_sums.numel(),
                                          a.peak.as<int32_t>(), a.peak.numel(), a.capacity, a.verdict.as<int32_t>());
  ASSAY_CUDA_LAUNCHED(op, a.square_sums.describe());
}

}  // namespace assay::cuda
