// Products into FP8 codes and weight gradients of one group: the older and the newer kernels side by side, each against
// a plain reference, then timed at the shapes of d12.
#include <cudaTypedefs.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "engine/ops/cuda/check.h"
#include "engine/ops/cuda/codes_kernel.cuh"
#include "engine/ops/cuda/grouped_kernel.cuh"
#include "engine/ops/cuda/tensor_map.h"
#include "engine/ops/cuda/wgrad_balanced.cuh"

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

// Reference: one thread per output, FP32.
template <class A, class B, class O, class H>
__global__ void reference(const A* a, const B* b, O* out, const H* hidden, float* row_sum, const int* start,
                          const int* rows, int n, int k, float scale_a, const float* scale_b, float out_scale,
                          float hidden_scale, Epilogue epilogue) {
  const int g = blockIdx.z, c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y;
  if (r >= rows[g] || c >= n) return;
  float s = 0;
  for (int i = 0; i < k; ++i) s += load(a, size_t(start[g] + r) * k + i) * load(b, (size_t(g) * n + c) * k + i);
  if (scale_b) s *= scale_a * scale_b[g];
  const size_t at = size_t(start[g] + r) * n + c;
  if (epilogue == Epilogue::relu2) s = s > 0 ? s * s : 0;
  if (epilogue == Epilogue::residual) s += load(hidden, at);
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

__global__ void count_other(const uint8_t* x, const uint8_t* y, size_t count, unsigned long long* differences) {
  unsigned long long other = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
    other += x[i] != y[i];
  if (other != 0) atomicAdd(differences, other);
}

// Products into codes have a kernel of their own.
template <class C>
constexpr bool makes_codes = requires {
  C::half_columns;
};
// The same product by the older kernel.
template <class C>
using Older = GroupedConfig<C::type, C::out, C::epilogue, C::transposed>;

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
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&partial, size_t(rows) * ((n + C::bn - 1) / C::bn) * 4));
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
  const CUtensorMap mh = make_map(hidden, sizeof(H), rows, n, 64), mo = make_map(out, sizeof(O), rows, n, 64);
  CUtensorMap mt = make_map(transposed, 1, n, rows, C::bn, 64), ma = make_map(a, sizeof(A), rows, k, tile_m),
              mb = make_map(b, sizeof(B), size_t(groups) * n, k, C::bn);
  GroupedParams p{};
  p.start = d_start;
  p.rows = d_rows;
  p.groups = groups;
  p.n = n;
  p.k_steps = int((k * sizeof(A) + 127) / 128);
  p.a_scale = f;
  p.b_scale = f + 3;
  p.out_scale = f + 1;
  p.out_amax = f + 2;
  p.hidden_scale = f + 3;
  p.gate_partial = partial;
  p.alpha = p.beta = 1.0f;
  int sms = 0;
  ASSAY_CUDA_CHECK("lab", cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  uint8_t* older = nullptr;  // codes of the older kernel
  float older_amax = 0;
  if constexpr (makes_codes<C>) {
    using Old = Older<C>;
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&older, size_t(rows) * n));
    ASSAY_CUDA_CHECK("lab", cudaMemset(older, 0x7f, size_t(rows) * n));
    ASSAY_CUDA_CHECK("lab",
                     cudaFuncSetAttribute(grouped_kernel<Old>, cudaFuncAttributeMaxDynamicSharedMemorySize, Old::smem));
    grouped_kernel<Old><<<sms, 384, Old::smem>>>(ma, mb, make_map(older, 1, rows, n, 64), mt, mh, p);
    ASSAY_CUDA_CHECK("lab", cudaGetLastError());
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(&older_amax, f + 2, 4, cudaMemcpyDeviceToHost));
    ASSAY_CUDA_CHECK("lab", cudaMemset(f + 2, 0, 4));
    ASSAY_CUDA_CHECK("lab", cudaMemset(transposed, 0x7f, size_t(rows) * n));
    ASSAY_CUDA_CHECK("lab", cudaMemset(partial, 0xff, size_t(rows) * ((n + C::bn - 1) / C::bn) * 4));
    if (C::transposed) ma = assay::cuda::row_order_map("lab", a, rows, k, RowOrder::pairs, tile_m);
    mb = assay::cuda::row_order_map("lab", b, int64_t{groups} * n, k, RowOrder::fours, C::bn);
    mt = make_map(transposed, 1, n, rows, C::half_columns, 64);
    ASSAY_CUDA_CHECK("lab",
                     cudaFuncSetAttribute(codes_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
  } else {
    ASSAY_CUDA_CHECK("lab",
                     cudaFuncSetAttribute(grouped_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
  }
  auto launch = [&] {
    if constexpr (makes_codes<C>)
      codes_kernel<C><<<sms, 384, C::smem>>>(ma, mb, mo, mt, mh, p);
    else
      grouped_kernel<C><<<sms, 384, C::smem>>>(ma, mb, mo, mt, mh, p);
    ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  };
  launch();
  ASSAY_CUDA_CHECK("lab", cudaDeviceSynchronize());
  const int most = std::max(1, *std::max_element(counts.begin(), counts.end()));
  reference<<<dim3((n + 255) / 256, most, groups), 256>>>(a, b, expected, hidden, row_expected, d_start, d_rows, n, k,
                                                          scales[0], fp8 ? f + 3 : nullptr, scales[1],
                                                          sizeof(H) == 1 ? scales[3] : 1.0f, C::epilogue);
  ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  compare<<<dim3(64, groups), 256>>>(out, expected, d_start, d_rows, n, sums);
  double s[2];
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(s, sums, 16, cudaMemcpyDeviceToHost));
  std::printf("%-28s n=%d k=%d rows=%d error=%.3e", name, n, k, rows, s[1] ? std::sqrt(s[0] / s[1]) : 0.0);
  if (grad) {
    add_partials<<<(rows + 255) / 256, 256>>>(partial, row_sum, rows, (n + C::bn - 1) / C::bn);
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
  if (makes_codes<C>) {
    ASSAY_CUDA_CHECK("lab", cudaMemset(differences, 0, 8));
    count_other<<<1024, 256>>>(reinterpret_cast<uint8_t*>(out), older, size_t(rows) * n, differences);
    unsigned long long count;
    float amax;
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(&count, differences, 8, cudaMemcpyDeviceToHost));
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(&amax, f + 2, 4, cudaMemcpyDeviceToHost));
    std::printf(" bit-exact=%s (%llu other codes) amax ratio=%.7f", count == 0 ? "yes" : "no", count,
                amax / older_amax);
    ASSAY_CUDA_CHECK("lab", cudaFree(older));
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
  for (void* q :
       {(void*)a, (void*)b, (void*)out, (void*)expected, (void*)d_start, (void*)d_rows, (void*)f, (void*)sums,
        (void*)hidden, (void*)partial, (void*)row_sum, (void*)row_expected, (void*)transposed, (void*)differences})
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

// splits = 0: shared out evenly (one group). Long sums are checked against the turnstile's, not the reference.
template <class C, class A, class B>
void wgrad_lab(const char* name, const std::vector<int>& counts, int m, int n, int splits, bool timed) {
  constexpr int turnstile_splits = 11;
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
  const int tiles = groups * ((m + tile_m - 1) / tile_m) * ((n + C::bn - 1) / C::bn);
  const size_t turnstile_bytes = size_t(tiles) * 2 * 4;
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&turnstile, turnstile_bytes));
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
  ASSAY_CUDA_CHECK(
      "lab", cudaFuncSetAttribute(wgrad_balanced_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
  int sms = 0;
  ASSAY_CUDA_CHECK("lab", cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  WgradPlan plan{};
  WgradSums partial{nullptr, turnstile};
  if (splits == 0) {
    plan = plan_wgrad(tiles, (rows + C::k_per_stage - 1) / C::k_per_stage, sms);
    if (groups != 1 || plan.chunks == 0) std::fprintf(stderr, "no plan for %s\n", name), std::exit(1);
    p.start = p.rows = nullptr;
    p.group_rows = rows;
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&partial.partial, size_t(tiles) * plan.slots() * tile_m * C::bn * 4));
    ASSAY_CUDA_CHECK("lab", cudaMemset(partial.partial, 0xff, size_t(tiles) * plan.slots() * tile_m * C::bn * 4));
  }
  auto launch = [&] {
    ASSAY_CUDA_CHECK("lab", cudaMemsetAsync(turnstile, 0, turnstile_bytes));
    if (splits == 0)
      wgrad_balanced_kernel<C><<<plan.blocks(), 384, C::smem>>>(ma, mb, p, plan, partial);
    else
      wgrad_kernel<C><<<sms, 384, C::smem>>>(ma, mb, p);
    ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  };
  launch();
  ASSAY_CUDA_CHECK("lab", cudaDeviceSynchronize());
  const bool is_long = groups == 1 && rows > 25000;
  if (is_long) {
    WgradParams q = p;
    q.dw = expected, q.splits = turnstile_splits;
    ASSAY_CUDA_CHECK("lab", cudaMemset(turnstile, 0, turnstile_bytes));
    wgrad_kernel<C><<<sms, 384, C::smem>>>(ma, mb, q);
  } else {
    wgrad_reference<<<dim3((n + 127) / 128, m, groups), 128>>>(a, b, expected, d_start, d_rows, m, n, ra, ca, rb, cb,
                                                               scales[0] * scales[1]);
  }
  ASSAY_CUDA_CHECK("lab", cudaGetLastError());
  unsigned long long other_bits = 0;
  if (splits == 0) {  // the same bits every time
    float* again;
    unsigned long long* differences;
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&again, size * 4));
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&differences, 8));
    ASSAY_CUDA_CHECK("lab", cudaMemset(differences, 0, 8));
    p.dw = again;
    for (int i = 0; i < 10; ++i) {
      fill<<<1024, 256>>>(again, size, 3u, 1.0f);
      launch();
      count_other<<<1024, 256>>>(reinterpret_cast<uint8_t*>(dw), reinterpret_cast<uint8_t*>(again), size * 4,
                                 differences);
    }
    p.dw = dw;
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(&other_bits, differences, 8, cudaMemcpyDeviceToHost));
    ASSAY_CUDA_CHECK("lab", cudaFree(again));
    ASSAY_CUDA_CHECK("lab", cudaFree(differences));
  }
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
  std::printf("%-28s m=%d n=%d rows=%d splits=%d error%s=%.3e", name, m, n, rows, splits,
              is_long ? " to turnstile" : "", s[1] ? std::sqrt(s[0] / s[1]) : 0.0);
  if (splits == 0) {
    std::printf(" same bits in ten more runs=%s", other_bits == 0 ? "yes" : "NO");
    ASSAY_CUDA_CHECK("lab", cudaFree(partial.partial));
  }
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

template <GemmType t, OutType o, Epilogue e, bool tr, int lead = 2>
using N = CodesConfig<t, o, e, tr, lead>;

int main() {
  const std::vector<int> odd = {0, 1, 127, 128, 129, 300, 0, 1000}, even(8, 16384), shared = {65535};
  const std::vector<int> skew = {20000, 9000, 16384, 12000, 24000, 16688, 18000, 15000};
  constexpr auto B = GemmType::bf16;
  constexpr auto F = GemmType::e4m3_e4m3;
  constexpr auto D = GemmType::e5m2_e4m3;
  using WB = WgradConfig<B, 256, 4>;
  using WF = WgradConfig<F, 256, 4>;
  using WD = WgradConfig<D, 256, 4>;
  for (const auto& c : {odd, even, skew, shared}) {
    const bool timed = c != odd;
    for (const int n : {384, 1024}) {
      if (n == 384 && timed) continue;  // only to see the edge of a tile
      lab<G<D, OutType::e5m2, Epilogue::relu2_grad, true>, e5, e4, e5>("old e5m2 relu2_grad+T", c, n, 768, timed);
      lab<N<D, OutType::e5m2, Epilogue::relu2_grad, true>, e5, e4, e5>("new e5m2 relu2_grad+T", c, n, 768, timed);
      if (timed) {
        lab<N<D, OutType::e5m2, Epilogue::relu2_grad, true, 0>, e5, e4, e5>("new, lead 0", c, n, 768, true);
        lab<N<D, OutType::e5m2, Epilogue::relu2_grad, true, 3>, e5, e4, e5>("new, lead 3", c, n, 768, true);
      }
      lab<G<D, OutType::e5m2, Epilogue::relu2_grad>, e5, e4, e5>("old e5m2 relu2_grad", c, n, 768, timed);
      lab<N<D, OutType::e5m2, Epilogue::relu2_grad, false>, e5, e4, e5>("new e5m2 relu2_grad", c, n, 768, timed);
      lab<G<F, OutType::e4m3, Epilogue::relu2, true>, e4, e4, e4>("old relu2->e4m3+T", c, n, 768, timed);
      lab<N<F, OutType::e4m3, Epilogue::relu2, true>, e4, e4, e4>("new relu2->e4m3+T", c, n, 768, timed);
      if (timed) {
        lab<N<F, OutType::e4m3, Epilogue::relu2, true, 0>, e4, e4, e4>("new, lead 0", c, n, 768, true);
        lab<N<F, OutType::e4m3, Epilogue::relu2, true, 3>, e4, e4, e4>("new, lead 3", c, n, 768, true);
      }
      lab<G<F, OutType::e4m3, Epilogue::relu2>, e4, e4, e4>("old relu2->e4m3", c, n, 768, timed);
      lab<N<F, OutType::e4m3, Epilogue::relu2, false>, e4, e4, e4>("new relu2->e4m3", c, n, 768, timed);
    }
  }
  lab<N<F, OutType::e4m3, Epilogue::relu2_grad, true>, e4, e4, e4>("new e4m3 relu2_grad+T", odd, 1024, 768, false);
  lab<GroupedConfig<F, OutType::bf16, Epilogue::residual, false, false, 256>, e4, e4, bf>("residual, 256 columns",
                                                                                          shared, 768, 768, true);
  lab<GroupedConfig<F, OutType::bf16, Epilogue::residual, false, false, 192>, e4, e4, bf>("residual, 192 columns",
                                                                                          shared, 768, 768, true);
  lab<GroupedConfig<F, OutType::bf16, Epilogue::residual, false, false, 128>, e4, e4, bf>("residual, 128 columns",
                                                                                          shared, 768, 768, true);
  wgrad_lab<WD, e5, e4>("new wgrad e5m2", {20000}, 1040, 400, 0, false);
  wgrad_lab<WF, e4, e4>("new wgrad e4m3", {8192}, 1024, 768, 0, false);
  wgrad_lab<WD, e5, e4>("new wgrad e5m2", {9000}, 768, 768, 0, false);
  wgrad_lab<WB, bf, bf>("new wgrad bf16", {8192}, 2304, 768, 0, false);
  wgrad_lab<WB, bf, bf>("new wgrad bf16", {10000}, 1000, 136, 0, false);
  const std::vector<int> tokens = {65536};
  const int shapes[][3] = {{768, 1024, 11}, {1024, 768, 11}, {768, 768, 7}, {2304, 768, 12}};  // m, n, older splits
  for (const auto& [m, n, splits] : shapes) {
    wgrad_lab<WD, e5, e4>("old wgrad e5m2", tokens, m, n, splits, true);
    wgrad_lab<WD, e5, e4>("new wgrad e5m2", tokens, m, n, 0, true);
    wgrad_lab<WB, bf, bf>("old wgrad bf16", tokens, m, n, splits, true);
    wgrad_lab<WB, bf, bf>("new wgrad bf16", tokens, m, n, 0, true);
  }
}
