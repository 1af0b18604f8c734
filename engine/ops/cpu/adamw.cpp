#include <cmath>

#include "engine/ops/cpu/element.h"
#include "engine/ops/optimizer.h"

namespace assay::cpu {
namespace {

template <class A>
void adamw_body(const AdamWArgs& a) {
  const int64_t n = a.param.numel();
  A* param = a.param.as<A>();
  A* m = a.m.as<A>();
  A* v = a.v.as<A>();
  const A* grad = a.grad.as<A>();
  const A keep = static_cast<A>(1 - a.lr * a.weight_decay);
  const A take1 = static_cast<A>(1 - a.beta1), take2 = static_cast<A>(1 - a.beta2), eps = static_cast<A>(a.eps);
  const A step_size = static_cast<A>(a.lr / (1 - std::pow(a.beta1, static_cast<double>(a.step))));
  const A v_correction = static_cast<A>(1 - std::pow(a.beta2, static_cast<double>(a.step)));
#pragma omp parallel for simd schedule(static) if (n > 1 << 14)
  for (int64_t i = 0; i < n; ++i) {
    m[i] += (grad[i] - m[i]) * take1;
    v[i] += (grad[i] * grad[i] - v[i]) * take2;
    param[i] = param[i] * keep - step_size * m[i] / (std::sqrt(v[i] / v_correction) + eps);
  }
}

}  // namespace

void adamw(const AdamWArgs& a) {
  const int64_t n = a.param.numel();
  const DType dtype = a.param.dtype;
  ASSAY_OP_CHECK("adamw", (dtype == DType::f32 || dtype == DType::f64) && a.step >= 1,
                 "param is " + a.param.describe() + " at step " + std::to_string(a.step) +
                     ", expected f32 or f64 and a 1-based step");
  check_tensor("adamw", "param", a.param, dtype, {n});
  check_tensor("adamw", "grad", a.grad, dtype, {n});
  check_tensor("adamw", "m", a.m, dtype, {n});
  check_tensor("adamw", "v", a.v, dtype, {n});
  if (a.skip != nullptr && *a.skip != 0) return;
  if (dtype == DType::f64) {
    adamw_body<double>(a);
  } else {
    adamw_body<float>(a);
  }
}

}  // namespace assay::cpu
