// What the kernels of the loss share.
#pragma once

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/loss.h"

namespace assay::cuda {

constexpr int loss_threads = 1024;

template <class S>
struct Loss {
  S* logits;
  const int32_t* targets;
  float* loss;
  int64_t C;
  int V;
  float cap, inverse_cap, grad_scale;
  bool forward_only;
  uint8_t* codes;         // [C, V]: the gradient in an FP8 format instead of in place
  float* code_scales[2];  // receive `scale`
  float scale;
};

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

// loss_rows.cu: rows of whole 16-byte vectors; caps up to highest_cap. The second writes the gradient as codes of both
// orientations, and nothing else; V a multiple of 128.
constexpr double highest_cap = 40;
void bf16_loss(cudaStream_t, const Loss<bf16>&, double softcap);
void bf16_loss_codes(cudaStream_t, const Loss<bf16>&, const SoftcapXentArgs&);

}  // namespace assay::cuda
