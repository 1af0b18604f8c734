#include "engine/ops/activation.h"

#include <cmath>

#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

template <class S>
void relu2_grad_body(const Relu2GradArgs& a, int64_t R, int64_t h) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < R; ++r) {
    const S* du = a.du.as<S>() + r * h;
    const S* hidden = a.h.as<S>() + r * h;
    S* dz = a.dz.as<S>() + r * h;
    // Before dz is written, which may be du or h.
    if (a.gate) a.gate_grad.as<A>()[r] = ungated(row_dot(du, hidden, h), a.gate.as<A>()[r]);
#pragma omp simd
    for (int64_t j = 0; j < h; ++j) store(dz[j], load(du[j]) * (A(2) * std::sqrt(load(hidden[j]))));
  }
}

}  // namespace

void relu2(const Relu2Args& a) {
  const int64_t n = a.z.numel();
  check_tensor("relu2", "h", a.h, a.z.dtype, {n});
  dispatch("relu2", a.z.dtype, [&]<class S>(S) {
    const S* z = a.z.as<S>();
    S* h = a.h.as<S>();
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
    for (int64_t i = 0; i < n; ++i) {
      const Acc<S> x = load(z[i]);
      // Not std::max: a NaN must come out as NaN.
      store(h[i], x < 0 ? Acc<S>(0) : x * x);
    }
  });
}

void relu2_grad(const Relu2GradArgs& a) {
  ASSAY_OP_CHECK("relu2_grad", a.du && a.du.rank == 2, "du is " + a.du.describe() + ", expected [R, h]");
  const int64_t R = a.du.dim(0), h = a.du.dim(1);
  const DType stat = stat_dtype(a.du.dtype);
  check_tensor("relu2_grad", "h", a.h, a.du.dtype, {R, h});
  check_tensor("relu2_grad", "dz", a.dz, a.du.dtype, {R, h});
  ASSAY_OP_CHECK("relu2_grad", static_cast<bool>(a.gate) == static_cast<bool>(a.gate_grad),
                 "gate and gate_grad go together, got " + a.gate.describe() + " and " + a.gate_grad.describe());
  if (a.gate) check_tensor("relu2_grad", "gate", a.gate, stat, {R});
  if (a.gate) check_tensor("relu2_grad", "gate_grad", a.gate_grad, stat, {R});
  dispatch("relu2_grad", a.du.dtype, [&]<class S>(S) { relu2_grad_body<S>(a, R, h); });
}

}  // namespace assay::cpu
