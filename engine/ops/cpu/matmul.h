// Row-major matrix products on OpenBLAS, and the store that ends them.
#pragma once

#include "engine/ops/cpu/element.h"

namespace assay::cpu {

// c[M, N] = alpha * op(a) * op(b) + beta * c. lda, ldb, ldc: distance between stored rows. c is not read when beta is
// 0. Inside an OpenMP parallel region the product runs on the calling thread alone.
struct MatmulShape {
  int64_t M, N, K;
  bool transpose_a = false, transpose_b = false;
  int64_t lda, ldb, ldc;
};
void matmul(const MatmulShape& s, float alpha, const float* a, const float* b, float beta, float* c);
void matmul(const MatmulShape& s, double alpha, const double* a, const double* b, double beta, double* c);

// product[M, N] = a[first_row .. first_row + M, K] * b[N, K]^T with both scales applied to the FP32 accumulators:
// tensorwise and rowwise after the sum, block modes after every 128 of K. b is one matrix. Uses the operand slots.
void fp8_product(const Quantized& a, int64_t first_row, int64_t M, const Quantized& b, int64_t N, int64_t K,
                 float* product);

}  // namespace assay::cpu
