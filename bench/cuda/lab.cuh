// What the labs of the matrix products share: checked calls, random inputs, timing. All on the default stream.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "engine/ops/cuda/check.h"

namespace assay::cuda::lab {

inline void ok(cudaError_t error) {
  ASSAY_CUDA_CHECK("lab", error);
}

// Uniform values in [-amplitude, amplitude).
template <class T>
__global__ void fill_kernel(T* p, size_t count, uint32_t seed, float amplitude) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u + seed;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    p[i] = T((float(x) / 4294967296.0f * 2 - 1) * amplitude);
  }
}
// Milliseconds a launch: the median of 15 times four, after four to warm up.
template <class F>
double median_ms(F&& launch) {
  cudaEvent_t begin, end;
  ok(cudaEventCreate(&begin));
  ok(cudaEventCreate(&end));
  std::vector<float> ms;
  for (int i = 0; i < 16; ++i) {
    ok(cudaEventRecord(begin));
    for (int j = 0; j < 4; ++j) launch();
    ok(cudaEventRecord(end));
    ok(cudaEventSynchronize(end));
    float t = 0;
    ok(cudaEventElapsedTime(&t, begin, end));
    if (i > 0) ms.push_back(t / 4);
  }
  ok(cudaEventDestroy(begin));
  ok(cudaEventDestroy(end));
  std::sort(ms.begin(), ms.end());
  return ms[7];
}

}  // namespace assay::cuda::lab
