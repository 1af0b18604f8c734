// Kernel lab: cuDNN attention on the packed projection against a plain reference, then timed at d12.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "engine/ops/cuda/check.h"
#include "engine/ops/cuda/cudnn_attention.h"

using bf16 = __nv_bfloat16;

static float noise(uint32_t x) {
  x *= 2654435761u;
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return float(x) / 4294967296.0f * 2 - 1;
}

static double relative(const std::vector<double>& want, const std::vector<bf16>& got) {
  double e = 0, s = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = double(__bfloat162float(got[i])) - want[i];
    e += d * d, s += want[i] * want[i];
  }
  return std::sqrt(e / s);
}

// Double-precision forward and backward on the host.
static void reference(const std::vector<bf16>& qkv, const std::vector<bf16>& dout, int B, int T, int H, int D,
                      int window, std::vector<double>& out, std::vector<double>& dqkv) {
  auto at = [&](int b, int t, int part, int h) { return ((size_t(b) * T + t) * 3 + part) * H * D + size_t(h) * D; };
  auto f = [](bf16 x) { return double(__bfloat162float(x)); };
  out.assign(size_t(B) * T * H * D, 0), dqkv.assign(qkv.size(), 0);
  for (int b = 0; b < B; ++b)
    for (int h = 0; h < H; ++h)
      for (int t = 0; t < T; ++t) {
        const int lo = std::max(0, t - window + 1), n = t - lo + 1;
        std::vector<double> p(n), dp(n);
        double sum = 0, most = -1e30, dot = 0;
        for (int j = 0; j < n; ++j) {
          for (int c = 0; c < D; ++c) p[j] += f(qkv[at(b, t, 0, h) + c]) * f(qkv[at(b, lo + j, 1, h) + c]);
          most = std::max(most, p[j] /= std::sqrt(double(D)));
        }
        for (auto& x : p) sum += x = std::exp(x - most);
        const size_t o = ((size_t(b) * T + t) * H + h) * D;
        for (int j = 0; j < n; ++j) {
          p[j] /= sum;
          for (int c = 0; c < D; ++c) {
            const double v = f(qkv[at(b, lo + j, 2, h) + c]), g = f(dout[o + c]);
            out[o + c] += p[j] * v, dp[j] += g * v;
            dqkv[at(b, lo + j, 2, h) + c] += p[j] * g;
          }
          dot += dp[j] * p[j];
        }
        for (int j = 0; j < n; ++j) {
          const double ds = p[j] * (dp[j] - dot) / std::sqrt(double(D));
          for (int c = 0; c < D; ++c) {
            dqkv[at(b, t, 0, h) + c] += ds * f(qkv[at(b, lo + j, 1, h) + c]);
            dqkv[at(b, lo + j, 1, h) + c] += ds * f(qkv[at(b, t, 0, h) + c]);
          }
        }
      }
}

static void lab(int B, int T, int H, int D, int window, bool deterministic, bool check, bool timed) {
  const size_t n = size_t(B) * T * H * D;
  std::vector<bf16> qkv(3 * n), dout(n), out(n), dqkv(3 * n);
  for (size_t i = 0; i < qkv.size(); ++i) qkv[i] = __float2bfloat16(noise(i) * 1.5f);
  for (size_t i = 0; i < n; ++i) dout[i] = __float2bfloat16(noise(i + 777777777u));
  bf16 *d_qkv, *d_out, *d_dout, *d_dqkv;
  float* lse;
  void* workspace;
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_qkv, 6 * n));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_out, 2 * n));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_dout, 2 * n));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&d_dqkv, 6 * n));
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&lse, size_t(B) * H * T * 4));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_qkv, qkv.data(), 6 * n, cudaMemcpyHostToDevice));
  ASSAY_CUDA_CHECK("lab", cudaMemcpy(d_dout, dout.data(), 2 * n, cudaMemcpyHostToDevice));
  ASSAY_CUDA_CHECK("lab", cudaMemset(d_dqkv, 0x7f, 6 * n));
  ASSAY_CUDA_CHECK("lab", cudaMemset(d_out, 0x7f, 2 * n));
  auto attention = assay::cuda::CudnnAttention::create({B, T, H, D, window, deterministic});
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&workspace, attention->workspace_bytes() + 256));
  cudaStream_t stream;
  ASSAY_CUDA_CHECK("lab", cudaStreamCreate(&stream));
  auto forward = [&] { attention->forward(stream, d_qkv, d_out, lse, workspace); };
  auto backward = [&] { attention->backward(stream, d_qkv, d_out, lse, d_dout, d_dqkv, workspace); };
  forward(), backward();
  ASSAY_CUDA_CHECK("lab", cudaStreamSynchronize(stream));
  std::printf("B=%d T=%d H=%d D=%d window=%d deterministic=%d workspace=%.1f MiB", B, T, H, D, window, deterministic,
              attention->workspace_bytes() / 1048576.0);
  if (check) {
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(out.data(), d_out, 2 * n, cudaMemcpyDeviceToHost));
    ASSAY_CUDA_CHECK("lab", cudaMemcpy(dqkv.data(), d_dqkv, 6 * n, cudaMemcpyDeviceToHost));
    std::vector<double> want_out, want_dqkv;
    reference(qkv, dout, B, T, H, D, window, want_out, want_dqkv);
    std::printf(" error out=%.2e dqkv=%.2e", relative(want_out, out), relative(want_dqkv, dqkv));
  }
  if (timed) {
    cudaEvent_t e0, e1;
    ASSAY_CUDA_CHECK("lab", cudaEventCreate(&e0));
    ASSAY_CUDA_CHECK("lab", cudaEventCreate(&e1));
    const double pairs = double(B) * H * (double(T) * window - double(window) * (window - 1) / 2);
    for (int pass = 0; pass < 2; ++pass) {
      std::vector<float> ms;
      for (int i = 0; i < 20; ++i) {
        ASSAY_CUDA_CHECK("lab", cudaEventRecord(e0, stream));
        pass ? backward() : forward();
        ASSAY_CUDA_CHECK("lab", cudaEventRecord(e1, stream));
        ASSAY_CUDA_CHECK("lab", cudaEventSynchronize(e1));
        float t;
        ASSAY_CUDA_CHECK("lab", cudaEventElapsedTime(&t, e0, e1));
        ms.push_back(t);
      }
      std::sort(ms.begin(), ms.end());
      std::printf("  %s ms=%.4f TFLOP/s=%.0f", pass ? "backward" : "forward", ms[10],
                  pairs * D * 4 * (pass ? 2.5 : 1) / ms[10] * 1e-9);
    }
  }
  std::printf("\n");
  std::fflush(stdout);
  for (void* p : {(void*)d_qkv, (void*)d_out, (void*)d_dout, (void*)d_dqkv, (void*)lse, workspace})
    ASSAY_CUDA_CHECK("lab", cudaFree(p));
  ASSAY_CUDA_CHECK("lab", cudaStreamDestroy(stream));
}

int main() {
  lab(2, 256, 3, 128, 256, true, true, false);
  lab(1, 384, 2, 128, 128, true, true, false);
  lab(2, 200, 2, 64, 100, false, true, false);
  for (bool deterministic : {true, false}) {
    lab(32, 2048, 6, 128, 2048, deterministic, false, true);
    lab(32, 2048, 6, 128, 768, deterministic, false, true);
  }
}
