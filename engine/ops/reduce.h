// Small reductions and element-wise helpers with a fixed order of summation.
#pragma once

#include <vector>

#include "engine/ops/tensor.h"

namespace assay {

// out[i] (f64) += sum of squares of x[i]; all x of one dtype. The non-finite check reads the same values.
struct SumSquaresArgs {
  std::vector<Tensor> x;
  double* out = nullptr;
};
// out[0] (f64) += sum of x.
struct SumArgs {
  Tensor x;
  double* out = nullptr;
};
// y += x, rounded to y.dtype. The dtypes may differ (f64 only with f64).
struct AddArgs {
  Tensor x, y;
};
// dst = x rounded to dst.dtype (master weights -> compute weights); any of f64, f32, bf16 but f64 -> bf16.
struct CastArgs {
  Tensor x, dst;
};
struct FillZeroArgs {
  Tensor x;
};

namespace cpu {
void sum_squares(const SumSquaresArgs&);
void sum(const SumArgs&);
void add(const AddArgs&);
void cast(const CastArgs&);
void fill_zero(const FillZeroArgs&);
}  // namespace cpu
}  // namespace assay
