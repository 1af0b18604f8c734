#include "engine/ops/cpu/matmul.h"

#include <cblas.h>

namespace assay::cpu {
namespace {

constexpr int64_t block = 128;

CBLAS_TRANSPOSE flag(bool transpose) {
  return transpose ? CblasTrans : CblasNoTrans;
}
blasint blas(int64_t n) {
  return static_cast<blasint>(n);
}

template <class A>
bool finished_empty(const MatmulShape& s, A beta, A* c) {
  if (s.M > 0 && s.N > 0 && s.K > 0) return false;
  for (int64_t m = 0; m < s.M; ++m) {
    for (int64_t n = 0; n < s.N; ++n) c[m * s.ldc + n] = beta == 0 ? A(0) : beta * c[m * s.ldc + n];
  }
  return true;
}

bool by_blocks(ScaleMode mode) {
  return mode == ScaleMode::block_1x128 || mode == ScaleMode::block_128x128;
}

// Where the scale of (row, block of K) stands: scales[(row / rows_per_scale) * row_stride + block_of_k * block_stride].
struct ScaleView {
  const float* scales;
  int64_t rows_per_scale, row_stride, block_stride;

  ScaleView(const Quantized& q, int64_t K)
      : scales(q.scales.as<float>()), rows_per_scale(1), row_stride(0), block_stride(0) {
    if (q.mode == ScaleMode::rowwise) row_stride = 1;
    if (by_blocks(q.mode)) {
      row_stride = (K + block - 1) / block;
      block_stride = 1;
    }
    if (q.mode == ScaleMode::block_128x128) rows_per_scale = block;
  }
  float at(int64_t row, int64_t k_block) const {
    return scales[(row / rows_per_scale) * row_stride + k_block * block_stride];
  }
};

}  // namespace

void matmul(const MatmulShape& s, float alpha, const float* a, const float* b, float beta, float* c) {
  if (finished_empty(s, beta, c)) return;
  cblas_sgemm(CblasRowMajor, flag(s.transpose_a), flag(s.transpose_b), blas(s.M), blas(s.N), blas(s.K), alpha, a,
              blas(s.lda), b, blas(s.ldb), beta, c, blas(s.ldc));
}

void matmul(const MatmulShape& s, double alpha, const double* a, const double* b, double beta, double* c) {
  if (finished_empty(s, beta, c)) return;
  cblas_dgemm(CblasRowMajor, flag(s.transpose_a), flag(s.transpose_b), blas(s.M), blas(s.N), blas(s.K), alpha, a,
              blas(s.lda), b, blas(s.ldb), beta, c, blas(s.ldc));
}

void fp8_product(const Quantized& a, int64_t first_row, int64_t M, const Quantized& b, int64_t N, int64_t K,
                 float* product) {
  const float* av = widen_to_float(a.codes.view({a.codes.numel() / K, K}).slice(first_row, M), Slot::operand_a);
  const float* bv = widen_to_float(b.codes, Slot::operand_b);
  const ScaleView a_scale(a, K), b_scale(b, K);
  const bool blocks = by_blocks(a.mode) || by_blocks(b.mode);
  const int64_t step = blocks ? block : K;
  float* b_row = scratch<float>(Slot::row, N);
  float* partial = blocks ? scratch<float>(Slot::partial, M * N) : product;
  for (int64_t k = 0; k < K; k += step) {
    const int64_t width = std::min(step, K - k);
    matmul({M, N, width, false, true, K, K, N}, 1.0f, av + k, bv + k, 0.0f, partial);
    for (int64_t n = 0; n < N; ++n) b_row[n] = b_scale.at(n, k / block);
#pragma omp parallel for schedule(static) if (M * N > 1 << 15)
    for (int64_t m = 0; m < M; ++m) {
      const float s = a_scale.at(first_row + m, k / block);
      const float* from = partial + m * N;
      float* to = product + m * N;
      if (k == 0) {
#pragma omp simd
        for (int64_t n = 0; n < N; ++n) to[n] = from[n] * (s * b_row[n]);
      } else {
#pragma omp simd
        for (int64_t n = 0; n < N; ++n) to[n] += from[n] * (s * b_row[n]);
      }
    }
  }
}

}  // namespace assay::cpu
