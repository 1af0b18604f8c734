// What the labs of the matrix products share: checked calls, random inputs, timing. All on the default stream.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "engine/ops/cuda/check.h"
#include "engine/ops/tensor.h"

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
inline void* device(size_t bytes) {
  void* p = nullptr;
  ok(cudaMalloc(&p, bytes));
  return p;
}
// Values in [-1, 1) of an f32, bf16 or FP8 matrix.
inline Tensor random_matrix(DType type, int64_t rows, int64_t columns, uint32_t seed) {
  const Tensor t(device(static_cast<size_t>(rows * columns) * size_of(type)), type, {rows, columns});
  const auto fill = [&]<class T>(T* p) { fill_kernel<<<1024, 256>>>(p, t.numel(), seed, 1.0f); };
  if (type == DType::f32) fill(t.as<float>());
  if (type == DType::bf16) fill(t.as<__nv_bfloat16>());
  if (type == DType::fp8_e4m3) fill(t.as<__nv_fp8_e4m3>());
  if (type == DType::fp8_e5m2) fill(t.as<__nv_fp8_e5m2>());
  return t;
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
