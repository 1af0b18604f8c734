// What grouped_lab.cu checks the products against: plain kernels of one thread per output in FP32, inputs, comparison.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "bench/cuda/lab.cuh"
#include "engine/ops/cuda/grouped_kernel.cuh"

namespace assay::cuda::lab {

// Device memory.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) { ok(cudaMalloc(&data_, std::max<size_t>(count, 1) * sizeof(T))); }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    ok(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }
  operator T*() const { return data_; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }
  void set_bytes(int value) const { ok(cudaMemset(data_, value, bytes())); }
  std::vector<T> host() const {
    std::vector<T> values(count_);
    ok(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

template <class T>
void fill(const Buffer<T>& to, uint32_t seed, float amplitude) {
  fill_kernel<<<1024, 256>>>(static_cast<T*>(to), to.size(), seed, amplitude);
  ok(cudaGetLastError());
}
// Over four powers of two.
static __global__ void fill_scales(float* p, size_t count, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const uint32_t x = (uint32_t(i) * 2654435761u + seed) * 0x7feb352du;
    p[i] = 0.01f * exp2f(float(x >> 8) / 16777216.0f * 4 - 2);
  }
}
// relu(z)^2: about half zeros, the rest positive.
template <class T>
__global__ void make_hidden(T* p, size_t count) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const float z = float(p[i]);
    p[i] = T(z > 0 ? z * z : 0.0f);
  }
}
// Rows between the end of a group and the next multiple of 128 become zero; element (r, c) lies at r * sr + c * sc.
template <class T>
__global__ void zero_padding(T* p, const int* start, const int* rows, int columns, size_t sr, size_t sc) {
  const int g = blockIdx.y, end = (rows[g] + 127) / 128 * 128;
  for (int r = start[g] + rows[g]; r < start[g] + end; ++r)
    for (int c = threadIdx.x + blockIdx.x * blockDim.x; c < columns; c += blockDim.x * gridDim.x)
      p[r * sr + c * sc] = T(0.0f);
}

// Scales of FP8 operands: a's of (row, block of 128 along k), b's of (group, column, block), as the kernels have them.
struct ReferenceScales {
  const float *a, *b;  // null: 1
  Scales kind;
  int n, blocks;  // along k
  __device__ float of(int row, int group, int column, int block) const {
    if (a == nullptr) return 1.0f;
    if (kind == Scales::tensorwise) return *a * b[group];
    if (kind == Scales::rowwise) return a[row] * b[group * n + column];
    return a[row * blocks + block] * b[(group * ((n + 127) / 128) + column / 128) * blocks + block];
  }
};

template <class A, class B, class O, class H>
__global__ void product_reference(const A* a, const B* b, O* out, const H* hidden, float* row_sum, const int* start,
                                  const int* rows, int n, int k, ReferenceScales scales, float out_scale,
                                  float hidden_scale, Epilogue epilogue) {
  const int g = blockIdx.z, c = blockIdx.y * blockDim.x + threadIdx.x, r = blockIdx.x;  // x: grids may be that long
  if (r >= rows[g] || c >= n) return;
  float s = 0;
  for (int block = 0; block < k; block += 128) {
    float partial = 0;
    for (int i = block; i < min(k, block + 128); ++i)
      partial += float(a[size_t(start[g] + r) * k + i]) * float(b[(size_t(g) * n + c) * k + i]);
    s += partial * scales.of(start[g] + r, g, c, block / 128);
  }
  const size_t at = size_t(start[g] + r) * n + c;
  if (epilogue == Epilogue::relu2) s = s > 0 ? s * s : 0;
  if (epilogue == Epilogue::residual) s += float(hidden[at]);
  if (epilogue == Epilogue::relu2_grad) {
    const float h = float(hidden[at]) * hidden_scale;
    atomicAdd(row_sum + start[g] + r, s * h);
    s *= 2 * sqrtf(h);
  }
  out[at] = O(s / out_scale);
}
static __global__ void add_partials(const float* partial, float* out, int rows, int parts) {
  const int r = blockIdx.x * blockDim.x + threadIdx.x;
  if (r >= rows) return;
  float s = 0;
  for (int i = 0; i < parts; ++i) s += partial[size_t(r) * parts + i];
  out[r] = s;
}
// dw += scale * sum over r of a(r, i) * b(r, j), whose elements lie at r * ra + i * ca and r * rb + j * cb.
template <class A, class B>
__global__ void wgrad_reference(const A* a, const B* b, float* dw, const int* start, const int* rows, int m, int n,
                                size_t ra, size_t ca, size_t rb, size_t cb, float scale) {
  const int g = blockIdx.z, j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
  if (j >= n) return;
  float s = 0;
  for (int r = start[g]; r < start[g] + rows[g]; ++r) s += float(a[r * ra + i * ca]) * float(b[r * rb + j * cb]);
  dw[(size_t(g) * m + i) * n + j] += s * scale;
}

template <class T>
__global__ void add_squares(const T* x, const T* y, const int* start, const int* rows, int n, double* sums) {
  const int g = blockIdx.y;
  double e = 0, s = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < size_t(rows[g]) * n;
       i += size_t(gridDim.x) * blockDim.x) {
    const size_t at = size_t(start[g]) * n + i;
    const double a = float(x[at]), b = float(y[at]);
    e += (a - b) * (a - b), s += b * b;
  }
  atomicAdd(sums, e), atomicAdd(sums + 1, s);
}
// |x - y| / |y| over the rows of the groups, which have n columns.
template <class T>
double relative_error(const T* x, const T* y, const Buffer<int>& start, const Buffer<int>& rows, int n) {
  const Buffer<double> sums(std::vector<double>{0, 0});
  add_squares<<<dim3(64, static_cast<unsigned>(start.size())), 256>>>(
      x, y, static_cast<int*>(start), static_cast<int*>(rows), n, static_cast<double*>(sums));
  ok(cudaGetLastError());
  const auto s = sums.host();
  return s[1] != 0 ? std::sqrt(s[0] / s[1]) : std::sqrt(s[0]);
}
static __global__ void count_differences(const uint8_t* x, const uint8_t* transposed, const int* start,
                                         const int* counts, int total_rows, int n, unsigned long long* differences) {
  const int g = blockIdx.y;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < size_t(counts[g]) * n;
       i += size_t(gridDim.x) * blockDim.x) {
    const size_t r = start[g] + i / n, c = i % n;
    if (x[r * n + c] != transposed[c * total_rows + r]) atomicAdd(differences, 1ull);
  }
}

}  // namespace assay::cuda::lab
