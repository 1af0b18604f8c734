// softcap + cross entropy, in place. A block per row. Bytes per logit: 2 in, 2 out.
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

constexpr int threads = 1024;

template <class S>
struct Loss {
  S* logits;
  const int32_t* targets;
  float* loss;
  int64_t C;
  int V;
  float cap, inverse_cap, grad_scale;
  bool forward_only;
};

__device__ __forceinline__ float tanh_of(float u) {
  return 1.0f - 2.0f / (__expf(2.0f * u) + 1.0f);
}

struct BlockReduce {
  float* parts;  // [32]
  __device__ __forceinline__ float sum(float x) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(parts[threadIdx.x % 32]);
  }
  __device__ __forceinline__ float max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[threadIdx.x % 32];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
    return x;
  }
};

// Any V: the row is read three times, after the first from the caches.
template <class S>
__global__ __launch_bounds__(threads) void loss_kernel(Loss<S> a) {
  __shared__ float parts[32];
  BlockReduce reduce{parts};
  S* row = a.logits + static_cast<int64_t>(blockIdx.x) * a.V;
  const int target = a.targets[blockIdx.x];
  // tanh rises, so the largest logit gives the largest z.
  float top = -INFINITY;
  for (int j = threadIdx.x; j < a.V; j += threads) top = fmaxf(top, to_float(row[j]));
  top = a.cap * tanh_of(reduce.max(top) * a.inverse_cap);
  float sum = 0;
  for (int j = threadIdx.x; j < a.V; j += threads)
    sum += __expf(a.cap * tanh_of(to_float(row[j]) * a.inverse_cap) - top);
  sum = reduce.sum(sum);
  if (threadIdx.x == 0) a.loss[blockIdx.x] = top + logf(sum) - a.cap * tanh_of(to_float(row[target]) * a.inverse_cap);
  if (a.forward_only) return;
  __syncthreads();  // the target's logit has been read
  const float inverse = 1.0f / sum;
  for (int j = threadIdx.x; j < a.V; j += threads) {
    const float t = tanh_of(to_float(row[j]) * a.inverse_cap);
    const float p = __expf(a.cap * t - top) * inverse - (j == target ? 1.0f : 0.0f);
    row[j] = rounded<S>(p * a.grad_scale * (1.0f - t * t));
  }
}

}  // namespace

void softcap_xent(cudaStream_t stream, const SoftcapXentArgs& a) {
  const char* op = "softcap_xent";
  ASSAY_OP_CHECK(op, a.logits && a.logits.rank == 2 && a.softcap > 0,
                 "logits are " + a.logits.describe() + ", expected [C, V]");
  const int64_t C = a.logits.dim(0), V = a.logits.dim(1);
  check_tensor(op, "targets", a.targets, DType::i32, {C});
  check_tensor(op, "loss", a.loss, DType::f32, {C});
  if (C == 0) return;
  dispatch(op, a.logits.dtype, [&]<class S>(S) {
    loss_kernel<S><<<C, threads, 0, stream>>>({a.logits.as<S>(), a.targets.as<int32_t>(), a.loss.as<float>(), C,
                                               static_cast<int>(V), static_cast<float>(a.softcap),
                                               static_cast<float>(1.0 / a.softcap), static_cast<float>(a.grad_scale),
                                               a.forward_only});
  });
  ASSAY_CUDA_LAUNCHED(op, a.logits.describe());
}

}  // namespace assay::cuda
