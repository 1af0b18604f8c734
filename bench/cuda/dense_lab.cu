// The dense products of a training step against cuBLASLt, shape by shape: why there is no second way to multiply
// (docs/ARCHITECTURE.md, Decisions). cuBLASLt is loaded where it is installed (LD_LIBRARY_PATH); of the algorithms that
// its heuristic proposes each is timed and the best counts.
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "bench/cuda/lab.cuh"
#include "engine/ops/cuda/gemm.h"

using namespace assay;
using namespace assay::cuda;

namespace {

using lab::device, lab::random_matrix;

// The part of cuBLASLt's C interface that is used here, from its documentation.
namespace lt {
using Handle = void*;
using Object = void*;  // descriptor, layout or preference
struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
constexpr int compute_32f = 68, desc_transa = 3, desc_transb = 4, desc_a_scale = 17, desc_b_scale = 18,
              desc_fast_accum = 25, preference_workspace = 1;
int (*create)(Handle*);
int (*desc_create)(Object*, int compute, int scale_type);
int (*desc_set)(Object, int attribute, const void*, size_t);
int (*layout_create)(Object*, int type, uint64_t rows, uint64_t columns, int64_t ld);
int (*preference_create)(Object*);
int (*preference_set)(Object, int attribute, const void*, size_t);
int (*heuristic)(Handle, Object, Object, Object, Object, Object, Object, int, Heuristic*, int*);
int (*matmul)(Handle, Object, const void*, const void*, Object, const void*, Object, const void*, const void*, Object,
              void*, Object, const void*, void*, size_t, cudaStream_t);

template <class F>
void find(void* library, const char* name, F& f) {
  f = reinterpret_cast<F>(dlsym(library, name));
  if (f == nullptr) std::fprintf(stderr, "libcublasLt.so.13 has no %s\n", name), std::exit(1);
}
void load() {
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW);
  if (library == nullptr) std::fprintf(stderr, "%s; set LD_LIBRARY_PATH\n", dlerror()), std::exit(1);
  find(library, "cublasLtCreate", create);
  find(library, "cublasLtMatmulDescCreate", desc_create);
  find(library, "cublasLtMatmulDescSetAttribute", desc_set);
  find(library, "cublasLtMatrixLayoutCreate", layout_create);
  find(library, "cublasLtMatmulPreferenceCreate", preference_create);
  find(library, "cublasLtMatmulPreferenceSetAttribute", preference_set);
  find(library, "cublasLtMatmulAlgoGetHeuristic", heuristic);
  find(library, "cublasLtMatmul", matmul);
}
void check(int status, const char* what) {
  if (status != 0) std::fprintf(stderr, "cuBLASLt: %s: status %d\n", what, status), std::exit(1);
}
int type_of(DType t) {
  return t == DType::bf16       ? CUDA_R_16BF
         : t == DType::f32      ? CUDA_R_32F
         : t == DType::fp8_e4m3 ? CUDA_R_8F_E4M3
                                : CUDA_R_8F_E5M2;
}
}  // namespace lt

template <class T>
__global__ void difference(const T* x, const T* y, int64_t count, double* sums) {
  double e = 0, s = 0;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    const double a = float(x[i]), b = float(y[i]);
    e += (a - b) * (a - b), s += b * b;
  }
  atomicAdd(sums, e), atomicAdd(sums + 1, s);
}

// out[M, N] = op(a) * op(b), + residual or + out (f32). kind: 'f' a[M,K] b[N,K]; 'd' a[M,K] b[K,N]; 'w' a[K,M] b[K,N].
// FP8 operands are K-major always: 'f'.
void compare(const char* name, char kind, DType a_type, DType b_type, DType out_type, int64_t M, int64_t N, int64_t K,
             bool residual) {
  constexpr size_t workspace_bytes = 64 << 20;
  static void* workspace = device(workspace_bytes);
  static float* scales = random_matrix(DType::f32, 1, 8, 9).as<float>();
  float *const a_scale = scales, *const b_scale = scales + 4;  // cuBLASLt wants 16-byte addresses
  static lt::Handle handle = [] {
    lt::Handle h;
    lt::check(lt::create(&h), "create");
    return h;
  }();
  const bool fp8 = a_type != DType::bf16, accumulate = out_type == DType::f32;
  const Tensor a = kind == 'w' ? random_matrix(a_type, K, M, 1) : random_matrix(a_type, M, K, 1);
  const Tensor b = kind == 'f' ? random_matrix(b_type, N, K, 2) : random_matrix(b_type, K, N, 2);
  const Tensor ours = random_matrix(out_type, M, N, 3), theirs = random_matrix(out_type, M, N, 3);
  const Tensor added = residual ? random_matrix(out_type, M, N, 4) : Tensor();
  const auto own = [&] {
    if (fp8) {
      const Tensor sa(a_scale, DType::f32, {1}), sb(b_scale, DType::f32, {1});
      gemm_fp8(nullptr,
               {.a = {a, sa, ScaleMode::tensorwise},
                .b = {b, sb, ScaleMode::tensorwise},
                .out = ours,
                .residual = added,
                .accumulate = accumulate},
               {workspace, workspace_bytes});
    } else {
      gemm(nullptr,
           {.a = a,
            .b = b,
            .transpose_a = kind == 'w',
            .transpose_b = kind == 'f',
            .out = ours,
            .residual = added,
            .accumulate = accumulate},
           {workspace, workspace_bytes});
    }
  };

  // Row-major out[M, N] is column-major [N, M]: b comes first.
  lt::Object desc, la, lb, lo, preference;
  lt::check(lt::desc_create(&desc, lt::compute_32f, CUDA_R_32F), "descriptor");
  const int transpose_first = kind == 'f', transpose_second = kind == 'w';
  lt::check(lt::desc_set(desc, lt::desc_transa, &transpose_first, sizeof(int)), "transa");
  lt::check(lt::desc_set(desc, lt::desc_transb, &transpose_second, sizeof(int)), "transb");
  if (fp8) {
    const int8_t fast = 1;
    lt::check(lt::desc_set(desc, lt::desc_a_scale, &b_scale, sizeof(b_scale)), "scale");
    lt::check(lt::desc_set(desc, lt::desc_b_scale, &a_scale, sizeof(a_scale)), "scale");
    lt::check(lt::desc_set(desc, lt::desc_fast_accum, &fast, sizeof(fast)), "fast accumulation");
  }
  const auto layout = [](lt::Object* l, const Tensor& t) {
    lt::check(lt::layout_create(l, lt::type_of(t.dtype), t.dim(1), t.dim(0), t.dim(1)), "layout");
  };
  layout(&la, b), layout(&lb, a), layout(&lo, ours);
  lt::check(lt::preference_create(&preference), "preference");
  lt::check(lt::preference_set(preference, lt::preference_workspace, &workspace_bytes, sizeof(size_t)), "preference");
  lt::Heuristic found[16];
  int count = 0;
  lt::check(lt::heuristic(handle, desc, la, lb, lo, lo, preference, 16, found, &count), "heuristic");
  const float one = 1, beta = residual || accumulate ? 1 : 0;
  const void* c = residual ? added.data : theirs.data;
  const auto library = [&](const lt::Heuristic& h) {
    lt::check(lt::matmul(handle, desc, &one, b.data, la, a.data, lb, &beta, c, lo, theirs.data, lo, h.algorithm,
                         workspace, workspace_bytes, nullptr),
              "matmul");
  };

  static double* sums = static_cast<double*>(device(2 * sizeof(double)));
  lab::ok(cudaMemset(sums, 0, 2 * sizeof(double)));
  lab::ok(cudaDeviceSynchronize());
  own(), library(found[0]);
  lab::ok(cudaDeviceSynchronize());
  if (accumulate)
    difference<<<256, 256>>>(ours.as<float>(), theirs.as<float>(), M * N, sums);
  else
    difference<<<256, 256>>>(ours.as<__nv_bfloat16>(), theirs.as<__nv_bfloat16>(), M * N, sums);
  double host[2];
  lab::ok(cudaMemcpy(host, sums, sizeof(host), cudaMemcpyDeviceToHost));

  const double first = lab::median_ms([&] { library(found[0]); });
  double best = first;
  int best_at = 0;
  for (int i = 1; i < count; ++i)
    if (const double ms = lab::median_ms([&] { library(found[i]); }); ms < best) best = ms, best_at = i;
  // In turns: the card gets warmer.
  const double own_ms = lab::median_ms(own), library_ms = lab::median_ms([&] { library(found[best_at]); }),
               again = lab::median_ms(own);
  const double tera = 2.0 * M * N * K / 1e9;
  std::printf(
      "%-34s %6.3f %6.3f ms %5.0f TFLOP/s | cuBLASLt first %5.0f best (%d of %d) %5.0f | ratio %.2f | error %.1e\n",
      name, own_ms, again, tera / std::min(own_ms, again), tera / first, best_at + 1, count, tera / library_ms,
      library_ms / std::min(own_ms, again), std::sqrt(host[0] / host[1]));
  std::fflush(stdout);
  for (const Tensor* t : {&a, &b, &ours, &theirs, &added})
    if (t->data != nullptr) lab::ok(cudaFree(t->data));
}

}  // namespace

int main() {
  lt::load();
  constexpr DType bf16 = DType::bf16, f32 = DType::f32, e4m3 = DType::fp8_e4m3, e5m2 = DType::fp8_e5m2;
  constexpr int64_t N = 65536, chunk = 8192;
  std::printf("d12, 65,536 tokens; ours twice, before and after cuBLASLt's best; ratio = cuBLASLt's time / ours\n");
  compare("qkv, BF16", 'f', bf16, bf16, bf16, N, 2304, 768, false);
  compare("qkv input gradient, BF16", 'd', bf16, bf16, bf16, N, 768, 2304, false);
  compare("qkv weight gradient, BF16", 'w', bf16, bf16, f32, 2304, 768, N, false);
  compare("Wo + residual, BF16", 'f', bf16, bf16, bf16, N, 768, 768, true);
  compare("Wo input gradient, BF16", 'd', bf16, bf16, bf16, N, 768, 768, false);
  compare("Wo weight gradient, BF16", 'w', bf16, bf16, f32, 768, 768, N, false);
  compare("lm_head, BF16", 'f', bf16, bf16, bf16, chunk, 32768, 768, false);
  compare("lm_head input gradient, BF16", 'd', bf16, bf16, bf16, chunk, 768, 32768, false);
  compare("lm_head weight gradient, BF16", 'w', bf16, bf16, f32, 32768, 768, chunk, false);
  compare("qkv, E4M3", 'f', e4m3, e4m3, bf16, N, 2304, 768, false);
  compare("qkv input gradient, E5M2", 'f', e5m2, e4m3, bf16, N, 768, 2304, false);
  compare("qkv weight gradient, E5M2", 'f', e5m2, e4m3, f32, 2304, 768, N, false);
  compare("Wo + residual, E4M3", 'f', e4m3, e4m3, bf16, N, 768, 768, true);
  compare("Wo input gradient, E5M2", 'f', e5m2, e4m3, bf16, N, 768, 768, false);
  compare("Wo weight gradient, E5M2", 'f', e5m2, e4m3, f32, 768, 768, N, false);
  return 0;
}
