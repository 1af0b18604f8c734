// Kernel lab: the grouped GEMM against a plain reference, then timed at the shapes of d12 and d24.
#include <cudaTypedefs.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "engine/ops/cuda/check.h"
#include "engine/ops/cuda/grouped_kernel.cuh"
#include "engine/ops/cuda/wgrad_kernel.cuh"

using namespace assay::cuda;

static PFN_cuTensorMapEncodeTiled_v12000 encode() {
  void* f = nullptr;
  cudaDriverEntryPointQueryResult r;
  ASSAY_CUDA_CHECK("lab", cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &r));
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(f);
}

static CUtensorMap make_map(void* p, int size, uint64_t rows, uint64_t columns, uint32_t box_rows,
                            uint32_t row_bytes = 128) {
  CUtensorMap map;
  cuuint64_t dims[2] = {columns, rows}, strides[1] = {columns * size};
  cuuint32_t box[2] = {row_bytes / size, box_rows}, one[2] = {1, 1};
  static auto f = encode();
  const auto r =
      f(&map, size == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, p, dims, strides, box,
        one, CU_TENSOR_MAP_INTERLEAVE_NONE, row_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r != CUDA_SUCCESS) std::fprintf(stderr, "encode failed %d\n", r), std::exit(1);
  return map;
}

__device__ float load(const __nv_bfloat16* p, size_t i) {
  return __bfloat162float(p[i]);
}
__device__ float load(const float* p, size_t i) {
  return p[i];
}
__device__ float load(const __nv_fp8_e4m3* p, size_t i) {
  return float(p[i]);
}
__device__ float load(const __nv_fp8_e5m2* p, size_t i) {
  return float(p[i]);
}

// Scales of FP8 operands: a's of (row, block of 128 along k), b's of (group, column, block), as the kernels have them.
struct LabScales {
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

// Reference: one thread per output, FP32.
template <class A, class B, class O, class H>
__global__ void reference(const A* a, const B* b, O* out, const H* hidden, float* row_sum, const int* start,
                          const int* rows, int n, int k, LabScales scales, float out_scale, float hidden_scale,
                          Epilogue epilogue) {
  const int g = blockIdx.z, c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y;
  if (r >= rows[g] || c >= n) return;
  float s = 0;
  for (int block = 0; block < k; block += 128) {
    float partial = 0;
    for (int i = block; i < min(k, block + 128); ++i)
      partial += load(a, size_t(start[g] + r) * k + i) * load(b, (size_t(g) * n + c) * k + i);
    s += partial * scales.of(start[g] + r, g, c, block / 128);
  }
  const size_t at = size_t(start[g] + r) * n + c;
  if (epilogue == Epilogue::relu2) s = s > 0 ? s * s : 0;
  if (epilogue == Epilogue::relu2_grad) {
    const float h = load(hidden, at) * hidden_scale;
    atomicAdd(row_sum + start[g] + r, s * h);
    s *= 2 * sqrtf(h);
  }
  out[at] = O(s / out_scale);
}
__global__ void add_partials(const float* partial, float* out, int rows, int parts) {
  const int r = blockIdx.x * blockDim.x + threadIdx.x;
  if (r >= rows) return;
  float s = 0;
  for (int i = 0; i < parts; ++i) s += partial[size_t(r) * parts + i];
  out[r] = s;
}
__global__ void count_differences(const uint8_t* x, const uint8_t* transposed, const int* start, const int* counts,
                                  int total_rows, int n, unsigned long long* differences) {
  const int g = blockIdx.y;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < size_t(counts[g]) * n;
       i += size_t(gridDim.x) * blockDim.x) {
    const size_t r = start[g] + i / n, c = i % n;
    if (x[r * n + c] != transposed[c * total_rows + r]) atomicAdd(differences, 1ull);
  }
}
template <class T>
__global__ void fill(T* p, size_t count, uint32_t seed, float amplitude) {
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
__global__ void fill_scales(float* p, size_t count, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const uint32_t x = (uint32_t(i) * 2654435761u + seed) * 0x7feb352du;
    p[i] = 0.01f * exp2f(float(x >> 8) / 16777216.0f * 4 - 2);
  }
}
// relu(z)^2: about half zeros, the rest positive.
template <class T>
__global__ void make_hidden(T* p, size_t count) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const float z = load(p, i);
    p[i] = T(z > 0 ? z * z : 0.0f);
  }
}
template <class O>
__global__ void compare(const O* x, const O* y, const int* start, const int* rows, int n, double* sums) {
  const int g = blockIdx.y;
  double e = 0, s = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < size_t(rows[g]) * n;
       i += size_t(gridDim.x) * blockDim.x) {
    const size_t at = size_t(start[g]) * n + i;
    const double a = load(x, at), b = load(y, at);
    e += (a - b) * (a - b), s += b * b;
  }
  atomicAdd(sums, e), atomicAdd(sums + 1, s);
}

template <class C, class A, class B, class O>
void lab(const char* name, const std::vector<int>& counts, int n, int k, bool timed) {
  const int groups = counts.size();
  std::vector<int> start;
  int rows = 0;
  for (int c : counts) start.push_back(rows), rows += (c + 127) / 128 * 128;
  rows = std::max(rows, 128);
  A* a;
  B* b;
  O *out, *expected;
  int *d_start, *d_rows;
  float* f;
  double* sums;
  using H = std::conditional_t<sizeof(O) == 1, __nv_fp8_e4m3, __nv_bfloat16>;
  constexpr bool grad = C::epilogue == Epilogue::relu2_grad;
  H* hidden;
  float *partial, *row_sum, *row_expected;
  uint8_t* transposed;
  unsigned long long* differences;
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&hidden, size_t(rows) * n * sizeof(H)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&partial, size_t(rows) * (n / C::bn) * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&row_sum, size_t(rows) * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&row_expected, size_t(rows) * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&transposed, size_t(rows) * n));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&differences, 8));
  ASSAY_CUDA_CHECK("lab", cudaMemset(row_expected, 0, size_t(rows) * 4));
  ASSAY_CUDA_CHECK("lab", cudaMemset(differences, 0, 8));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&a, size_t(rows) * k * sizeof(A)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&b, size_t(groups) * n * k * sizeof(B)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&out, size_t(rows) * n * sizeof(O)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&expected, size_t(rows) * n * sizeof(O)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_start, groups * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_rows, groups * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&f, (groups + 3) * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&sums, 16));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_start, start.data(), groups * 4, cudaMemcpyHostToDevice));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_rows, counts.data(), groups * 4, cudaMemcpyHostToDevice));
  const bool fp8 = sizeof(A) == 1;
  std::vector<float> scales(groups + 3, 1.0f);
  for (int g = 0; g < groups; ++g) scales[3 + g] = 0.5f + 0.1f * g;
  scales[0] = 0.01f, scales[1] = sizeof(O) == 1 ? 0.02f : 1.0f, scales[2] = 0;
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(f, scales.data(), scales.size() * 4, cudaMemcpyHostToDevice));
  fill<<<1024, 256>>>(a, size_t(rows) * k, 1u, 2.0f);
  fill<<<1024, 256>>>(b, size_t(groups) * n * k, 7u, fp8 ? 2.0f : 0.05f);
  fill<<<1024, 256>>>(hidden, size_t(rows) * n, 11u, 3.0f);
  make_hidden<<<1024, 256>>>(hidden, size_t(rows) * n);
  ASSAY_CUDA_CHECK("lab", cudaMemset(out, 0x7f, size_t(rows) * n * sizeof(O)));
  ASSAY_CUDA_CHECK("lab", cudaMemset(sums, 0, 16));
  const CUtensorMap mh = make_map(hidden, sizeof(H), rows, n, 64), mt = make_map(transposed, 1, n, rows, C::bn, 64);
  const CUtensorMap ma = make_map(a, sizeof(A), rows, k, tile_m),
                    mb = make_map(b, sizeof(B), size_t(groups) * n, k, C::bn),
                    mo = make_map(out, sizeof(O), rows, n, 64);
  GroupedParams p{};
  p.start = d_start;
  p.rows = d_rows;
  p.groups = groups;
  p.n = n;
  p.k_steps = int((k * sizeof(A) + 127) / 128);
  p.a_rows = rows;
  p.a_scale = f;
  p.b_scale = f + 3;
  float *row_scales = nullptr, *column_scales = nullptr;  // over four powers of two
  if (C::scales != Scales::tensorwise) {
    const size_t per = C::scales == Scales::rowwise ? 1 : p.k_steps;
    const size_t of_a = rows * per,
                 of_b = C::scales == Scales::rowwise ? size_t(groups) * n : groups * ((n + 127) / 128) * per;
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&row_scales, of_a * 4));
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&column_scales, of_b * 4));
    fill_scales<<<1024, 256>>>(row_scales, of_a, 5u);
    fill_scales<<<1024, 256>>>(column_scales, of_b, 9u);
    p.a_scale = row_scales, p.b_scale = column_scales;
  }
  const LabScales lab_scales{fp8 ? p.a_scale : nullptr, p.b_scale, C::scales, n, p.k_steps};
  p.out_scale = f + 1;
  p.out_amax = f + 2;
  p.hidden_scale = f + 3;
  p.gate_partial = partial;
  p.alpha = p.beta = 1.0f;
  ASSAY_CUDA_CHECK("lab",
                   cudaFuncSetAttribute(grouped_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
  int sms = 0;
  ASSAY_CUDA_CHECK("lab", cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  auto launch = [&] {
    grouped_kernel<C><<<sms, 384, C::smem>>>(ma, mb, mo, mt, mh, p);
    ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  };
  launch();
  ASSAY_CUDA_CHECK("lab", cudaDeviceSynchronize());
  const int most = std::max(1, *std::max_element(counts.begin(), counts.end()));
  reference<<<dim3((n + 255) / 256, most, groups), 256>>>(a, b, expected, hidden, row_expected, d_start, d_rows, n, k,
                                                          lab_scales, scales[1], sizeof(H) == 1 ? scales[3] : 1.0f,
                                                          C::epilogue);
  ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  compare<<<dim3(64, groups), 256>>>(out, expected, d_start, d_rows, n, sums);
  double s[2];
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(s, sums, 16, cudaMemcpyDeviceToHost));
  std::printf("%-28s n=%d k=%d rows=%d error=%.3e", name, n, k, rows, s[1] ? std::sqrt(s[0] / s[1]) : 0.0);
  if (grad) {
    add_partials<<<(rows + 255) / 256, 256>>>(partial, row_sum, rows, n / C::bn);
    ASSAY_CUDA_CHECK("lab", cudaMemset(sums, 0, 16));
    compare<<<dim3(64, groups), 256>>>(row_sum, row_expected, d_start, d_rows, 1, sums);
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(s, sums, 16, cudaMemcpyDeviceToHost));
    std::printf(" row_sum error=%.3e", s[1] ? std::sqrt(s[0] / s[1]) : 0.0);
  }
  if (C::transposed) {
    count_differences<<<dim3(64, groups), 256>>>(reinterpret_cast<uint8_t*>(out), transposed, d_start, d_rows, rows, n,
                                                 differences);
    unsigned long long count;
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(&count, differences, 8, cudaMemcpyDeviceToHost));
    std::printf(" transposed differences=%llu", count);
  }
  if (timed) {
    cudaEvent_t e0, e1;
    ASSAY_CUDA_CHECK("lab", cudaEventCreate(&e0));
    ASSAY_CUDA_CHECK("lab", cudaEventCreate(&e1));
    for (int i = 0; i < 5; ++i) launch();
    std::vector<float> ms;
    for (int i = 0; i < 15; ++i) {
      ASSAY_CUDA_CHECK("lab", cudaEventRecord(e0));
      for (int j = 0; j < 4; ++j) launch();
      ASSAY_CUDA_CHECK("lab", cudaEventRecord(e1));
      ASSAY_CUDA_CHECK("lab", cudaEventSynchronize(e1));
      float t;
      ASSAY_CUDA_CHECK("lab", cudaEventElapsedTime(&t, e0, e1));
      ms.push_back(t / 4);
    }
    std::sort(ms.begin(), ms.end());
    double total = 0;
    for (int c : counts) total += c;
    std::printf("  ms=%.4f (min %.4f)  TFLOP/s=%.0f", ms[7], ms[0], 2 * total * n * k / ms[7] * 1e-9);
  }
  std::printf("\n");
  std::fflush(stdout);
  for (void* q : {(void*)a, (void*)b, (void*)out, (void*)expected, (void*)d_start, (void*)d_rows, (void*)f, (void*)sums,
                  (void*)hidden, (void*)partial, (void*)row_sum, (void*)row_expected, (void*)transposed,
                  (void*)differences, (void*)row_scales, (void*)column_scales})
    ASSAY_CUDA_CHECK("lab", cudaFree(q));
}

// Weight gradient reference: a, b by element (r, c); one thread per output, FP32.
template <class A, class B>
__global__ void wgrad_reference(const A* a, const B* b, float* dw, const int* start, const int* rows, int m, int n,
                                size_t ra, size_t ca, size_t rb, size_t cb, float scale) {
  const int g = blockIdx.z, j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
  if (j >= n) return;
  float s = 0;
  for (int r = start[g]; r < start[g] + rows[g]; ++r) s += load(a, r * ra + i * ca) * load(b, r * rb + j * cb);
  dw[(size_t(g) * m + i) * n + j] += s * scale;
}
// Zero the padding rows between groups; element (r, c) at r * sr + c * sc.
template <class T>
__global__ void zero_padding(T* p, const int* start, const int* rows, int columns, size_t sr, size_t sc) {
  const int g = blockIdx.y, end = (rows[g] + 127) / 128 * 128;
  for (int r = start[g] + rows[g]; r < start[g] + end; ++r)
    for (int c = threadIdx.x + blockIdx.x * blockDim.x; c < columns; c += blockDim.x * gridDim.x)
      p[r * sr + c * sc] = T(0.0f);
}

template <class C, class A, class B>
void wgrad_lab(const char* name, const std::vector<int>& counts, int m, int n, int splits, bool timed) {
  const int groups = counts.size();
  std::vector<int> start;
  int rows = 0;
  for (int c : counts) start.push_back(rows), rows += (c + 127) / 128 * 128;
  rows = std::max(rows, 128);
  A* a;
  B* b;
  float *dw, *expected, *f;
  int *d_start, *d_rows, *turnstile;
  double* sums;
  const size_t size = size_t(groups) * m * n;
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&a, size_t(rows) * m * sizeof(A)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&b, size_t(rows) * n * sizeof(B)));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&dw, size * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&expected, size * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&f, 8));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&sums, 16));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_start, groups * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_rows, groups * 4));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&turnstile, 8 * size / (128 * 128)));
  ASSAY_CUDA_CHECK("lab", cudaMemset(turnstile, 0, 8 * size / (128 * 128)));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_start, start.data(), groups * 4, cudaMemcpyHostToDevice));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_rows, counts.data(), groups * 4, cudaMemcpyHostToDevice));
  const float scales[2] = {C::fp8 ? 0.5f : 1.0f, C::fp8 ? 0.25f : 1.0f};
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(f, scales, 8, cudaMemcpyHostToDevice));
  fill<<<1024, 256>>>(a, size_t(rows) * m, 1u, 2.0f);
  fill<<<1024, 256>>>(b, size_t(rows) * n, 7u, 2.0f);
  const size_t ra = C::fp8 ? 1 : m, ca = C::fp8 ? rows : 1, rb = C::fp8 ? 1 : n, cb = C::fp8 ? rows : 1;
  zero_padding<<<dim3(8, groups), 128>>>(a, d_start, d_rows, m, ra, ca);
  zero_padding<<<dim3(8, groups), 128>>>(b, d_start, d_rows, n, rb, cb);
  fill<<<1024, 256>>>(dw, size, 3u, 1.0f);
  fill<<<1024, 256>>>(expected, size, 3u, 1.0f);
  ASSAY_CUDA_CHECK("lab", cudaMemset(sums, 0, 16));
  const CUtensorMap ma = C::fp8 ? make_map(a, 1, m, rows, tile_m) : make_map(a, 2, rows, m, 64);
  const CUtensorMap mb = C::fp8 ? make_map(b, 1, n, rows, C::bn) : make_map(b, 2, rows, n, 64);
  WgradParams p{d_start, d_rows, groups, 0, m, n, splits, true, dw, turnstile, f, f + 1};
  ASSAY_CUDA_CHECK("lab", cudaFuncSetAttribute(wgrad_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
  int sms = 0;
  ASSAY_CUDA_CHECK("lab", cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  auto launch = [&] {
    wgrad_kernel<C><<<sms, 384, C::smem>>>(ma, mb, p);
    ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  };
  launch();
  ASSAY_CUDA_CHECK("lab", cudaDeviceSynchronize());
  wgrad_reference<<<dim3((n + 127) / 128, m, groups), 128>>>(a, b, expected, d_start, d_rows, m, n, ra, ca, rb, cb,
                                                             scales[0] * scales[1]);
  ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  const std::vector<int> zero(groups, 0), whole(groups, m);
  std::vector<int> base;
  for (int g = 0; g < groups; ++g) base.push_back(g * m);
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_start, base.data(), groups * 4, cudaMemcpyHostToDevice));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_rows, whole.data(), groups * 4, cudaMemcpyHostToDevice));
  compare<<<dim3(64, groups), 256>>>(dw, expected, d_start, d_rows, n, sums);
  double s[2];
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(s, sums, 16, cudaMemcpyDeviceToHost));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_start, start.data(), groups * 4, cudaMemcpyHostToDevice));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_rows, counts.data(), groups * 4, cudaMemcpyHostToDevice));
  std::printf("%-28s m=%d n=%d rows=%d splits=%d error=%.3e", name, m, n, rows, splits,
              s[1] ? std::sqrt(s[0] / s[1]) : 0.0);
  if (timed) {
    cudaEvent_t e0, e1;
    ASSAY_CUDA_CHECK("lab", cudaEventCreate(&e0));
    ASSAY_CUDA_CHECK("lab", cudaEventCreate(&e1));
    std::vector<float> ms;
    for (int i = 0; i < 15; ++i) {
      ASSAY_CUDA_CHECK("lab", cudaEventRecord(e0));
      for (int j = 0; j < 4; ++j) launch();
      ASSAY_CUDA_CHECK("lab", cudaEventRecord(e1));
      ASSAY_CUDA_CHECK("lab", cudaEventSynchronize(e1));
      float t;
      ASSAY_CUDA_CHECK("lab", cudaEventElapsedTime(&t, e0, e1));
      ms.push_back(t / 4);
    }
    std::sort(ms.begin(), ms.end());
    double total = 0;
    for (int c : counts) total += c;
    std::printf("  ms=%.4f (min %.4f)  TFLOP/s=%.0f", ms[7], ms[0], 2 * total * m * n / ms[7] * 1e-9);
  }
  std::printf("\n");
  std::fflush(stdout);
  for (void* q : {(void*)a, (void*)b, (void*)dw, (void*)expected, (void*)d_start, (void*)d_rows, (void*)f, (void*)sums,
                  (void*)turnstile})
    ASSAY_CUDA_CHECK("lab", cudaFree(q));
}

using bf = __nv_bfloat16;
using e4 = __nv_fp8_e4m3;
using e5 = __nv_fp8_e5m2;
template <GemmType t, OutType o, Epilogue e, bool tr = false>
using G = GroupedConfig<t, o, e, tr>;
// Into BF16, with scales.
template <GemmType t, Epilogue e, Scales s, int bn = 256>
using S = GroupedConfig<t, OutType::bf16, e, false, false, bn, false, s>;

int main() {
  const std::vector<int> odd = {0, 1, 127, 128, 129, 300, 0, 1000}, one = {0, 2000, 0, 0}, even(8, 16384);
  const std::vector<int> skew = {20000, 9000, 16384, 12000, 24000, 16688, 18000, 15000};
  constexpr auto B = GemmType::bf16;
  constexpr auto F = GemmType::e4m3_e4m3;
  constexpr auto D = GemmType::e5m2_e4m3;
  using WB = WgradConfig<B, 256, 4>;
  using WF = WgradConfig<F, 256, 4>;
  using WD = WgradConfig<D, 256, 4>;
  for (const auto& c : {odd, one, even, skew}) {
    const bool timed = c.size() == 8 && c != odd;
    lab<G<B, OutType::bf16, Epilogue::none>, bf, bf, bf>("bf16", c, 768, 1024, timed);
    lab<G<B, OutType::bf16, Epilogue::relu2>, bf, bf, bf>("bf16 relu2", c, 1024, 768, timed);
    lab<G<B, OutType::bf16, Epilogue::relu2_grad>, bf, bf, bf>("bf16 relu2_grad", c, 1024, 768, timed);
    lab<G<F, OutType::e4m3, Epilogue::relu2>, e4, e4, e4>("fp8 relu2->e4m3", c, 1024, 768, timed);
    lab<G<F, OutType::e4m3, Epilogue::relu2, true>, e4, e4, e4>("fp8 relu2->e4m3+T", c, 1024, 768, timed);
    lab<G<F, OutType::bf16, Epilogue::none>, e4, e4, bf>("fp8->bf16", c, 768, 1024, timed);
    lab<G<D, OutType::bf16, Epilogue::none>, e5, e4, bf>("e5m2->bf16", c, 768, 1024, timed);
    for (const auto& [n, k] : {std::pair{1024, 768}, std::pair{768, 1024}}) {
      lab<G<F, OutType::bf16, Epilogue::none>, e4, e4, bf>("fp8 tensorwise->bf16", c, n, k, timed);
      lab<S<F, Epilogue::none, Scales::rowwise>, e4, e4, bf>("fp8 rowwise->bf16", c, n, k, timed);
      lab<S<F, Epilogue::none, Scales::blockwise>, e4, e4, bf>("fp8 blockwise->bf16", c, n, k, timed);
      lab<S<F, Epilogue::none, Scales::blockwise, 128>, e4, e4, bf>("fp8 blockwise->bf16, bn 128", c, n, k, timed);
    }
    lab<G<D, OutType::e5m2, Epilogue::relu2_grad>, e5, e4, e5>("e5m2 relu2_grad->e5m2", c, 1024, 768, timed);
    lab<G<D, OutType::e5m2, Epilogue::relu2_grad, true>, e5, e4, e5>("e5m2 relu2_grad->e5m2+T", c, 1024, 768, timed);
    lab<G<F, OutType::e4m3, Epilogue::relu2_grad, true>, e4, e4, e4>("e4m3 relu2_grad->e4m3+T", c, 1024, 768, timed);
    wgrad_lab<WB, bf, bf>("wgrad bf16", c, 1024, 768, 2, timed);
    wgrad_lab<WF, e4, e4>("wgrad e4m3", c, 768, 1024, 2, timed);
    wgrad_lab<WD, e5, e4>("wgrad e5m2", c, 1024, 768, 2, timed);
  }
  const std::vector<int> d24(8, 16384);
  lab<G<B, OutType::bf16, Epilogue::none>, bf, bf, bf>("d24 bf16", d24, 2048, 1536, true);
  lab<G<F, OutType::bf16, Epilogue::none>, e4, e4, bf>("d24 fp8->bf16", d24, 2048, 1536, true);
}
