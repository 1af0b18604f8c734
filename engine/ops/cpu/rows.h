// Pieces that several twins do on one row. Sums run in eight interleaved lanes and then over the lanes in order: a
// fixed order whatever the machine and the number of threads, and one that the compiler can vectorise.
#pragma once

#include <cmath>

#include "engine/ops/cpu/element.h"

namespace assay::cpu {

template <class X, class Y>
inline Acc<X> row_dot(const X* x, const Y* y, int64_t n) {
  using A = Acc<X>;
  A lanes[8] = {};
  const int64_t whole = n & ~int64_t{7};
  for (int64_t j = 0; j < whole; j += 8) {
#pragma omp simd
    for (int l = 0; l < 8; ++l) lanes[l] += load(x[j + l]) * load(y[j + l]);
  }
  A sum = 0;
  for (A lane : lanes) sum += lane;
  for (int64_t j = whole; j < n; ++j) sum += load(x[j]) * load(y[j]);
  return sum;
}

template <class A>
inline A row_rstd(const A* row, int64_t n, A eps) {
  return A(1) / std::sqrt(row_dot(row, row, n) / A(n) + eps);
}

// The gradient of a row's gate from sum_n u * h, where u was made from the gated gradient.
template <class A>
inline A ungated(A sum, A gate) {
  return gate != A(0) ? sum / gate : A(0);
}

template <class A, class S>
inline void store_scaled(const A* row, A scale, S* out, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) store(out[j], row[j] * scale);
}

// The FP8 copies of a normed tensor that are wanted: see MixNormArgs::n8.
void quantize_normed(const Tensor& n, const Quantized& n8, const Quantized& n8t = {});

}  // namespace assay::cpu
