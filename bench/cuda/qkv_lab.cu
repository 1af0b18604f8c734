// The packed projection of d12 (65,536 tokens in sequences of 2,048, six heads of 128): the product and then
// qk_norm_rope, against the product that rotates and norms in its epilogue. Also the product alone, which is what the
// second can reach at best, and how far the two results are apart.
#include <cmath>
#include <cstdio>

#include "bench/cuda/lab.cuh"
#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/launch.h"

using namespace assay;
using namespace assay::cuda;

namespace {

constexpr int64_t N = 65536, H = 6, D = 128, d = H * D, T = 2048, V = 32768;

__global__ void fill_tables(float* cos, float* sin) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= T * D / 2) return;
  const double angle = at / (D / 2) * pow(10000.0, -2.0 * (at % (D / 2)) / D);
  cos[at] = static_cast<float>(::cos(angle)), sin[at] = static_cast<float>(::sin(angle));
}

__global__ void difference(const __nv_bfloat16* x, const __nv_bfloat16* y, int64_t count, int* different,
                           float* largest) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    const float a = x[i], b = y[i];
    if (a == b) continue;
    atomicAdd(different, 1);
    atomicMax(reinterpret_cast<int*>(largest), __float_as_int(fabsf(a - b)));
  }
}

struct Packed {
  Tensor qkv, rstd;
  explicit Packed(uint32_t seed)
      : qkv(lab::random_matrix(DType::bf16, N, 3 * d, seed).view({N, 3, H, D})),
        rstd(lab::random_matrix(DType::f32, N, 2 * H, seed + 1)) {}
};

void compare(const char* name, DType type, bool ve) {
  constexpr size_t workspace_bytes = 1 << 20;
  static void* const memory = lab::device(workspace_bytes);
  const Workspace workspace(memory, workspace_bytes);
  static const Tensor cos = lab::random_matrix(DType::f32, T, D / 2, 1),
                      sin = lab::random_matrix(DType::f32, T, D / 2, 1),
                      table = lab::random_matrix(DType::f32, V, d, 2), n = lab::random_matrix(DType::bf16, N, d, 3),
                      gate_w = lab::random_matrix(DType::f32, H, 12, 4);
  static const Tensor tokens = [] {
    std::vector<int32_t> ids(N);
    for (int64_t i = 0; i < N; ++i) ids[static_cast<size_t>(i)] = static_cast<int32_t>(i * 2654435761u % V);
    const Tensor t(lab::device(N * sizeof(int32_t)), DType::i32, {N});
    lab::ok(cudaMemcpy(t.data, ids.data(), t.bytes(), cudaMemcpyHostToDevice));
    return t;
  }();
  fill_tables<<<(T * D / 2 + 255) / 256, 256>>>(cos.as<float>(), sin.as<float>());
  const Packed one(5), two(7);
  const Tensor x = lab::random_matrix(type, N, d, 9), w = lab::random_matrix(type, 3 * d, d, 10),
               scale = lab::random_matrix(DType::f32, 1, 1, 11);
  const auto args = [&](const Packed& to) {
    ProjectQkvArgs a{.rope = {.qkv = to.qkv, .cos = cos, .sin = sin, .rstd = to.rstd, .T = T}};
    if (ve) a.rope.tokens = tokens, a.rope.ve_table = table, a.rope.n = n, a.rope.gate_w = gate_w;
    if (type == DType::bf16)
      a.x = x, a.w = w;
    else
      a.x8 = {x, scale.view({1}), ScaleMode::tensorwise}, a.w8 = {w, scale.view({1}), ScaleMode::tensorwise};
    return a;
  };
  const ProjectQkvArgs separate = args(one), together = args(two);
  const auto product = [&] {
    const Tensor out = one.qkv.view({N, 3 * d});
    if (type == DType::bf16)
      gemm(nullptr, {.a = x, .b = w, .out = out}, workspace);
    else
      gemm_fp8(nullptr, {.a = separate.x8, .b = separate.w8, .out = out}, workspace);
  };
  const auto both = [&] { product(), qk_norm_rope(nullptr, separate.rope); };
  const auto fused = [&] { project_qkv(nullptr, together, workspace); };
  static int* const found = static_cast<int*>(lab::device(2 * sizeof(int)));
  lab::ok(cudaMemset(found, 0, 2 * sizeof(int)));
  lab::ok(cudaDeviceSynchronize());
  both(), fused();
  difference<<<1024, 256>>>(one.qkv.as<__nv_bfloat16>(), two.qkv.as<__nv_bfloat16>(), one.qkv.numel(), found,
                            reinterpret_cast<float*>(found + 1));
  struct {
    int different;
    float largest;
  } host;
  lab::ok(cudaMemcpy(&host, found, sizeof(host), cudaMemcpyDeviceToHost));
  // In turns: the card gets warmer.
  const double fused_ms = lab::median_ms(fused), both_ms = lab::median_ms(both), again = lab::median_ms(fused),
               product_ms = lab::median_ms(product);
  std::printf(
      "%-28s fused %.3f %.3f ms | product + qk_norm_rope %.3f ms | product alone %.3f ms | %d of %lld "
      "elements differ, by %.3g at most\n",
      name, fused_ms, again, both_ms, product_ms, host.different, static_cast<long long>(one.qkv.numel()),
      host.largest);
  std::fflush(stdout);
  for (const Tensor& t : {x, w, scale, one.qkv, one.rstd, two.qkv, two.rstd}) lab::ok(cudaFree(t.data));
}

}  // namespace

int main() {
  for (const bool ve : {false, true}) {
    compare(ve ? "BF16, value embeddings" : "BF16", DType::bf16, ve);
    compare(ve ? "E4M3, value embeddings" : "E4M3", DType::fp8_e4m3, ve);
  }
  return 0;
}
